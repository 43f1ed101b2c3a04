"""`minilm-np trace`: every intermediate array of a text, as a table."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from minilm_np.cli.files import check_output, decoded
from minilm_np.cli.options import add_command
from minilm_np.model_files.manifest import DEFAULT_MODEL
from minilm_np.sentence_encoder import BACKENDS, SentenceEncoder
from minilm_np.trace import DTYPES, Array, Trace, trace

FIRST = 3  # values that a line shows
WIDTH = 160  # columns that a terminal is taken to have


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "trace",
        _trace,
        "show every intermediate array of a text",
        'minilm-np trace "A text" --save a_text.safetensors',
    )
    parser.add_argument("text", metavar="TEXT", help="the text")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a name, or a folder (default: %(default)s)")
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="numpy",
        help="numpy: the reference, which has all of them; numba: the engine, those that it does not fuse "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="of the numpy backend (default: %(default)s)"
    )
    parser.add_argument("--save", metavar="FILE", help="write the arrays, with the tokens, to this .safetensors file")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="(default: %(default)s)")


def _trace(options: argparse.Namespace) -> int:
    if options.backend == "numba" and options.dtype != "float32":
        options.parser.error("--dtype float64 needs --backend numpy: the engine computes in float32")
    if options.save is not None:
        check_output(Path(options.save), "--save")
    [text] = decoded([options.text])
    encoder = SentenceEncoder(options.model, backend=options.backend)
    found = trace(encoder, text, dtype=options.dtype, backend=options.backend)
    if options.save is not None:
        found.save(options.save)
    print(_as_json(found) if options.format == "json" else _as_text(found))
    return 0


def _statistics(array: Array) -> dict[str, float]:
    """Mean, standard deviation, least and largest value and Euclidean norm, summed in float64."""
    with np.errstate(all="ignore"):  # what is not finite is shown as it is
        wide = array.astype(np.float64).ravel()
        return {
            "mean": float(wide.mean()),
            "std": float(wide.std()),
            "min": float(wide.min()),
            "max": float(wide.max()),
            "norm": math.sqrt(float(wide @ wide)),
        }


def _as_json(found: Trace) -> str:
    facts = {
        "text": found.text,
        "truncated": found.truncated,
        "tokens": [
            {"token": token, "id": number, "offsets": pair}
            for token, number, pair in zip(found.tokens, found.ids, found.offsets, strict=True)
        ],
        "model": found.model,
        "backend": found.backend,
        "dtype": found.dtype,
        "versions": found.versions,
        "intermediates": [
            {"name": name, "dimensions": found.dimensions[name], "shape": list(array.shape)}
            # JSON has no NaN and no infinity
            | {key: value if math.isfinite(value) else None for key, value in _statistics(array).items()}
            | {"first": [value if math.isfinite(value) else None for value in array.ravel()[:FIRST].tolist()]}
            for name, array in found.items()
        ],
    }
    return json.dumps(facts, indent=2, ensure_ascii=False)


def _as_text(found: Trace) -> str:
    lines = [
        f"model   {found.model}, {found.dtype}, backend {found.backend}",
        f"tokens  {len(found.ids)}{' (the text was cut there)' if found.truncated else ''}: each with the characters "
        "of the text that it stands for",
        *_wrapped(f"{token} {start}-{stop}" for token, (start, stop) in zip(found.tokens, found.offsets, strict=True)),
        "",
    ]
    width = max(map(len, found))
    numbers = ("mean", "std", "min", "max", "norm")
    lines.append(f"{'name':{width}} {'':5} {'shape':>14}" + "".join(f"{key:>10}" for key in numbers) + "  first values")
    for name, array in found.items():
        values = list(_statistics(array).values()) + array.ravel()[:FIRST].tolist()
        shape = " x ".join(map(str, array.shape))
        lines.append(f"{name:{width}} {found.dimensions[name]:5} {shape:>14}" + "".join(map(_number, values)))
    return "\n".join(lines)


def _number(value: float) -> str:
    """Ten columns: four decimals where they say something, else a power of ten."""
    small = value != 0 and abs(value) < 1e-3
    return f"{value:10.1e}" if small or abs(value) >= 1e4 else f"{value:10.4f}"


def _wrapped(words: Any) -> list[str]:
    """Words in lines that fit the terminal."""
    lines = [""]
    for word in words:
        if len(lines[-1]) + 3 + len(word) > WIDTH - 8:
            lines.append("")
        lines[-1] += f"   {word}" if lines[-1] else f"        {word}"
    return lines
