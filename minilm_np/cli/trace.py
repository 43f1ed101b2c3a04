"""`minilm-np trace`: every intermediate array of a text, or of a pair of texts, as a table."""

import argparse
import math
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilm_np.cli.files import check_output, decoded
from minilm_np.cli.options import add_command, add_format_option, add_model_options, load, load_cross_encoder
from minilm_np.cli.printing import cells, columns, write_json, write_lines
from minilm_np.engine import registry
from minilm_np.model_files.kinds import is_cross_encoder
from minilm_np.model_files.manifest import DEFAULT_CROSS_ENCODER, DEFAULT_MODEL
from minilm_np.trace import DTYPES, PairTrace, Trace, statistics, trace

if TYPE_CHECKING:
    from minilm_np.cli.options import Commands

FIRST = 3  # values per array that are shown, if there is room
STATISTICS = 5  # numbers per array before them


def add(commands: "Commands") -> None:
    """Add `trace` to the commands."""
    parser = add_command(
        commands,
        "trace",
        _trace,
        "show every intermediate array of a text, or of a pair",
        'minilm-np trace "A text" --save a_text.safetensors',
        details="Print the tokens of the text, then one row per array, from the embeddings to the vector: its name,\n"
        "its shape, its mean, standard deviation, minimum, maximum and norm, and its first values.\n"
        "With --pair, the arrays are those of a cross-encoder, from the embeddings to the score.",
    )
    parser.add_argument("text", metavar="TEXT", help="the text to trace")
    parser.add_argument(
        "--pair",
        metavar="SECOND",
        help="trace the pair of TEXT and this text in a cross-encoder; the default of --model is then "
        f"{DEFAULT_CROSS_ENCODER}",
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="dtype of the numpy backend's arrays (default: %(default)s)"
    )
    parser.add_argument("--save", metavar="FILE", help="write the arrays and the tokens to this .safetensors file")
    add_format_option(parser)
    add_model_options(
        parser,
        backend="numpy",
        backend_help="numpy: the reference, with every array; numba: the engine, without the arrays of fused steps",
        threads=False,
    )


def _trace(options: argparse.Namespace) -> int:
    if options.dtype not in registry.find(options.backend).dtypes:
        options.parser.error("--dtype float64 needs --backend numpy: the numba backend computes in float32")
    if options.save is not None:
        check_output(Path(options.save), "--save")
    found = _traced(options)
    if options.save is not None:
        found.save(options.save)
    if options.format == "json":
        write_json(_as_json(found), indent=2)
    else:
        write_lines(_as_table(found, columns()))
    return 0


def _traced(options: argparse.Namespace) -> Trace:
    if options.pair is None:
        if is_cross_encoder(options.model):
            options.parser.error(f"--model {options.model} is a cross-encoder: give the second text with --pair")
        [text] = decoded([options.text])
        return trace(load(options), text, dtype=options.dtype, backend=options.backend)
    first, second = decoded([options.text, options.pair])
    model = load_cross_encoder(options, DEFAULT_CROSS_ENCODER if options.model == DEFAULT_MODEL else options.model)
    return trace(model, (first, second), dtype=options.dtype, backend=options.backend)


def _as_json(found: Trace) -> dict[str, Any]:
    tokens: list[dict[str, object]] = [
        {"token": token, "id": number, "offsets": pair}
        for token, number, pair in zip(found.tokens, found.ids, found.offsets, strict=True)
    ]
    pair = {}
    if isinstance(found, PairTrace):
        pair = {"text_pair": found.text_pair}
        for token, segment, kind in zip(tokens, found.segments, found.token_type_ids, strict=True):
            token |= {"segment": segment, "token_type_id": kind}
    return {
        "text": found.text,
        **pair,
        "truncated": found.truncated,
        "tokens": tokens,
        "model": found.model,
        "backend": found.backend,
        "dtype": found.dtype,
        "versions": found.versions,
        "intermediates": [
            {"name": name, "dimensions": found.dimensions[name], "shape": list(array.shape)}
            # JSON has no NaN and no infinity
            | {key: value if math.isfinite(value) else None for key, value in statistics(array).items()}
            | {"first": [value if math.isfinite(value) else None for value in array.ravel()[:FIRST].tolist()]}
            for name, array in found.items()
        ],
    }


def _as_table(found: Trace, width: int) -> list[str]:
    """The tokens, then one row per array; on a narrow terminal its name has a separate line."""
    lines = [f"model   {found.model}, {found.dtype}, backend {found.backend}", *_tokens(found, width), ""]
    rows = [(name, found.dimensions[name], " x ".join(map(str, array.shape))) for name, array in found.items()]
    of_name, of_letters, of_shape = (max(map(len, column)) for column in zip(*rows, ("name", "", "shape"), strict=True))
    apart = of_name + of_letters + of_shape + 2 + 10 * (STATISTICS + FIRST) > width
    if apart:
        of_name = len("name")
    first = max(0, min(FIRST, (width - of_name - of_letters - of_shape - 2) // 10 - STATISTICS))
    titles = ("mean", "std", "min", "max", "norm")
    header = f"{'name':{of_name}} {'':{of_letters}} {'shape':>{of_shape}}"
    lines.append(header + "".join(f"{title:>10}" for title in titles) + "  first values" * (first > 0))
    for (name, letters, shape), array in zip(rows, found.values(), strict=True):
        if apart:
            lines.append(name)
        row = f"{'' if apart else name:{of_name}} {letters:{of_letters}} {shape:>{of_shape}}"
        lines.append(row + "".join(map(_number, [*statistics(array).values(), *array.ravel()[:first].tolist()])))
    return lines


def _tokens(found: Trace, width: int) -> Iterator[str]:
    """The tokens with their characters; of a pair, each segment has its lines, with the types of its tokens."""
    shown = [f"{token} {start}-{stop}" for token, (start, stop) in zip(found.tokens, found.offsets, strict=True)]
    if not isinstance(found, PairTrace):
        truncated = " (the text was truncated)" if found.truncated else ""
        yield f"tokens  {len(shown)}, each with its characters in the text{truncated}"
        yield from _wrapped(shown, width)
        return
    truncated = " (the pair was truncated)" if found.truncated else ""
    yield f"tokens  {len(shown)}, each with its characters in its text{truncated}"
    rows = zip(found.segments, found.token_type_ids, shown, strict=True)
    for (segment, kind), tokens in groupby(rows, lambda row: row[:2]):
        yield f"        {segment}, token type {kind}:"
        yield from _wrapped((token for *_, token in tokens), width)


def _number(value: float) -> str:
    """A number in ten columns: with four decimals, or with an exponent if it is very small or very large."""
    small = value != 0 and abs(value) < 1e-3
    return f"{value:10.1e}" if small or abs(value) >= 1e4 else f"{value:10.4f}"


def _wrapped(words: Iterable[str], width: int) -> list[str]:
    """Words joined to lines of at most `width` columns, unless a word is longer."""
    lines = [""]
    for word in words:
        if lines[-1] and cells(lines[-1]) + 3 + cells(word) > width:
            lines.append("")
        lines[-1] += f"   {word}" if lines[-1] else f"        {word}"
    return lines
