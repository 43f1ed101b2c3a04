"""`minilm-np conformance`: write a file of the arrays that every implementation must compute, or check against one."""

import argparse
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilm_np.cli.files import check_output, read_lines, read_pairs
from minilm_np.cli.options import add_command, add_format_option, add_model_options, count, load, load_cross_encoder
from minilm_np.model_files.kinds import is_cross_encoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from minilm_np.cli.options import Commands

    # imported where they are used, to keep the start short
    from minilm_np.verify.conformance import Check, Conformance, Model

OF_TOKENS = ("ids", "token_type_ids", "lines")  # names of rows that compare tokens


def add(commands: "Commands") -> None:
    """Add `conformance`."""
    parser = add_command(
        commands,
        "conformance",
        None,
        "write or check a file of the arrays that every implementation must compute",
        "minilm-np conformance write minilm.safetensors",
        details="The layout of the file is in minilm_np/verify/CONFORMANCE.md.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    writing = add_command(
        actions,
        "write",
        _write,
        "write texts, token ids, intermediates and vectors to a .safetensors file",
        "minilm-np conformance write minilm.safetensors",
    )
    writing.add_argument("file", metavar="FILE", help="the file to write (atomically)")
    writing.add_argument(
        "--input",
        metavar="TEXTS",
        help="a file of texts, one per line (UTF-8); - is standard input; for a cross-encoder a file of pairs, as for "
        "`verify` (default: built-in texts)",
    )
    writing.add_argument(
        "--full",
        type=count,
        metavar="N",
        help="write all intermediates of the first N texts, about 0.5 MB per token (default: 3)",
    )
    add_model_options(writing)

    checking = add_command(
        actions,
        "check",
        _check,
        "check this installation, or the output of a port, against a conformance file",
        "minilm-np conformance check minilm.safetensors --against port.safetensors",
        notes="exit code: 0 it conforms, 1 it does not or an error occurred, 2 wrong usage",
    )
    checking.add_argument("file", metavar="FILE", help="a file of the same model")
    checking.add_argument(
        "--against",
        metavar="PORT",
        help="check what another implementation has written: a .safetensors file with any part of the tensors of FILE, "
        'under their names, or a .jsonl file with one {"text": ..., "ids": [...]} per line (no model is loaded)',
    )
    add_model_options(checking)
    add_format_option(checking)


def _write(options: argparse.Namespace) -> int:
    from minilm_np.verify.conformance import default_texts, write
    from minilm_np.verify.conformance_file import read

    path = Path(options.file)
    check_output(path, "")
    texts: list[str] | list[tuple[str, str]] | None = None
    if options.input is not None:
        texts = read_pairs(options.input) if is_cross_encoder(options.model) else read_lines(options.input)[1]
    model = _load(options)
    texts = default_texts(model) if texts is None else texts
    if options.full is not None and options.full > len(texts):
        options.parser.error(
            f"argument --full: expected at most {len(texts)}, the number of texts, found {options.full}"
        )
    write(model, path, texts, full=options.full)
    _, manifest = read(path)
    n_full = sum(text["intermediates"] for text in manifest["texts"])
    print(
        f"{path}: {manifest['model']['name']}, {len(manifest['texts'])} {_noun(manifest)}s, {n_full} of them with "
        f"{len(manifest['intermediates'])} intermediates, {os.path.getsize(path) / 1e6:.1f} MB"
    )
    return 0


def _load(options: argparse.Namespace) -> "Model":
    return load_cross_encoder(options, options.model) if is_cross_encoder(options.model) else load(options)


def _noun(manifest: "Mapping[str, Any]") -> str:
    from minilm_np.verify.conformance_file import kind_of

    return "pair" if kind_of(manifest).of_pairs else "text"


def _check(options: argparse.Namespace) -> int:
    if options.against is None:
        from minilm_np.verify.conformance import check

        result = check(_load(options), options.file)
    else:
        from minilm_np.verify.conformance_port import check_port

        result = check_port(options.file, options.against)
    print(_as_json(result) if options.format == "json" else _as_text(result))
    return 0 if result.conforms else 1


def _as_json(result: "Conformance") -> str:
    def shown(row: "Check") -> dict[str, Any]:
        values = {"text": row.text, "implementation": row.implementation, "name": row.name, "tolerance": row.tolerance}
        errors = {"max_abs": row.max_abs, "max_rel": row.max_rel}  # JSON has no NaN and no infinity
        finite = {key: value if math.isfinite(value) else None for key, value in errors.items()}
        return values | finite | {"conforms": row.conforms}

    first = result.first_failure
    facts = {
        "conforms": result.conforms,
        "first_failure": None if first is None else shown(first),
        "model": result.manifest["model"]["name"],
        "weights_sha256": result.manifest["model"]["weights_sha256"],
        "texts": result.manifest["texts"],
        "compared": [shown(row) for row in result.rows],
    }
    return json.dumps(facts, indent=2, ensure_ascii=False)


def _as_text(result: "Conformance") -> str:
    """A table with the largest relative error of each name over all texts, by implementation; then the verdict."""
    worst: dict[str, dict[str, Check]] = {}
    for row in result.rows:
        of_name = worst.setdefault(row.name, {})
        # an array out of tolerance is the worst even if its error is NaN
        if row.implementation not in of_name or _badness(row) > _badness(of_name[row.implementation]):
            of_name[row.implementation] = row
    # the first text need not be one with intermediates
    last = [name for name in worst if name.partition(",")[0] in ("vector", "logits")]
    names = [name for name in worst if name not in (*OF_TOKENS, *last)] + last
    columns = list(dict.fromkeys(row.implementation for row in result.rows if row.name not in OF_TOKENS))
    tolerance = result.manifest["tolerance"]
    texts, width = result.manifest["texts"], max(map(len, names), default=0)
    lines = [
        f"model      {result.manifest['model']['name']}, with the weights of the file",
        f"{_noun(result.manifest) + 's':10} {len(texts)}, {sum(text['intermediates'] for text in texts)} of them with "
        "intermediates",
        f"token ids  {_token_ids(result)}",
        *([] if names else ["", _verdict(result)]),
    ]
    if not names:
        return "\n".join(lines)
    lines += [
        "",
        "error: largest |difference from the file's float64 array| / largest |number",
        "of that array|, of the worst text; empty: this array was not compared;",
        "bit for bit: the fraction of the numbers that differ;",
        f"*: out of tolerance ({', '.join(f'{key} {value:.1e}' for key, value in tolerance.items())})",
        "",
        *(f"{'':{width}}" + "".join(f"{column.split()[line]:>10} " for column in columns) for line in (0, 1)),
    ]
    for name in names:
        cells = (worst[name].get(column) for column in columns)
        lines.append(f"{name:{width}}" + "".join(f"{'' if row is None else _cell(row):>11}" for row in cells))
    return "\n".join(line.rstrip() for line in [*lines, "", _verdict(result)])


def _token_ids(result: "Conformance") -> str:
    """In how many texts and lines the token ids differ."""
    of_texts = [row for row in result.rows if row.name in ("ids", "token_type_ids")]
    of_lines = [row for row in result.rows if row.name == "lines"]
    if not of_texts + of_lines:
        return "not in the port's file"
    noun = _noun(result.manifest)
    texts = len({row.text for row in of_texts if not row.conforms})
    lines = sum(int(row.max_abs) for row in of_lines)
    parts = [f"{n} {what}{'s' * (n > 1)}" for n, what in ((texts, noun), (lines, "tokenizer line")) if n]
    if parts:
        return f"differ in {' and '.join(parts)} *"
    compared = [f"all {len({row.text for row in of_texts})} compared {noun}s"] if of_texts else []
    return f"equal in {' and '.join([*compared, *['all compared tokenizer lines'] * bool(of_lines)])}"


def _verdict(result: "Conformance") -> str:
    first = result.first_failure
    if first is None:
        return "conforms: every compared array is within its tolerance"
    if first.text is None:
        return (
            f"does not conform: the token ids differ in {first.max_abs:.0f} of the file's `tokenizer_lines`, short "
            "texts that only test the tokenizer: compare your ids with `tokenizer_lines.ids` (see CONFORMANCE.md)"
        )
    from minilm_np.verify.conformance_file import shown_text

    where = f"{_noun(result.manifest)} {first.text} (counted from 0), {shown_text(result.manifest, first.text)}"
    if first.name in OF_TOKENS:
        what = "ids" if first.name == "ids" else "types"
        return (
            f"does not conform: the token {what} of {where}, differ at "
            f"{first.max_abs:.0f} position{'s' * (first.max_abs != 1)}: correct the tokenizer first"
        )
    return (
        f"does not conform: the first array out of tolerance is {first.name} of {where}, "
        f"{first.implementation}: error {first.max_rel:.2g}, tolerance {first.tolerance:.2g}"
    )


def _badness(row: "Check") -> float:
    return math.inf if math.isnan(row.max_rel) else row.max_rel


def _cell(row: "Check") -> str:
    return f"{row.max_rel:.1e}{' ' if row.conforms else '*'}"
