"""`minilm-np conformance`: write a file that says what any implementation of a model computes, or check against one."""

import argparse
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilm_np.cli.files import check_output, read_lines
from minilm_np.cli.options import add_command, add_model_options, load

if TYPE_CHECKING:
    from minilm_np.verify.conformance import Conformance, Row  # imported where they are used: the start is kept short


def add(commands: Any) -> None:
    summary = "write or check a file that says what an implementation has to compute"
    parser = commands.add_parser(
        "conformance",
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. Its layout is in minilm_np/verify/CONFORMANCE.md.",
        epilog="example: minilm-np conformance write minilm.safetensors",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    writing = add_command(
        actions,
        "write",
        _write,
        "write texts, token ids, intermediates and vectors to a .safetensors file",
        "minilm-np conformance write minilm.safetensors",
    )
    writing.add_argument("file", metavar="FILE", help="the file to write; it appears when it is whole")
    writing.add_argument(
        "--input", metavar="TEXTS", help="a text a line (UTF-8), - for standard input, not built-in ones"
    )
    writing.add_argument(
        "--full",
        type=_count,
        metavar="N",
        help="the first N texts get all their intermediates, some 0.5 MB a token (default: 3)",
    )
    add_model_options(writing)

    checking = add_command(
        actions,
        "check",
        _check,
        "check this installation against such a file: exit code 0 if it conforms, 1 if not",
        "minilm-np conformance check minilm.safetensors",
    )
    checking.add_argument("file", metavar="FILE", help="the file, of the same model")
    add_model_options(checking)
    checking.add_argument("--format", choices=("text", "json"), default="text", help="(default: %(default)s)")


def _count(value: str) -> int:
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of texts, found {value!r}")
    return int(value)


def _write(options: argparse.Namespace) -> int:
    from minilm_np.verify.conformance import default_texts, read, write

    path = Path(options.file)
    check_output(path, "")
    texts = None if options.input is None else read_lines(options.input)
    encoder = load(options)
    texts = default_texts(encoder) if texts is None else texts
    if options.full is not None and options.full > len(texts):
        options.parser.error(f"argument --full: expected at most {len(texts)}, all the texts, found {options.full}")
    write(encoder, path, texts, full=options.full)
    _, manifest = read(path)
    n_full = sum(text["intermediates"] for text in manifest["texts"])
    print(
        f"{path}: {len(manifest['texts'])} texts, {n_full} of them with {len(manifest['intermediates'])} intermediates,"
        f" {os.path.getsize(path) / 1e6:.1f} MB, of {manifest['model']['name']}"
    )
    return 0


def _check(options: argparse.Namespace) -> int:
    from minilm_np.verify.conformance import check

    result = check(load(options), options.file)
    print(_as_json(result) if options.format == "json" else _as_text(result))
    return 0 if result.conforms else 1


def _as_json(result: "Conformance") -> str:
    def shown(row: "Row") -> dict[str, Any]:
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
    """A line a name with the largest relative error over all texts, a column an implementation; then the verdict."""
    worst: dict[str, dict[str, Row]] = {}
    for row in result.rows:
        of_name = worst.setdefault(row.name, {})
        # what is out of tolerance is the worst even if it is NaN
        if row.implementation not in of_name or _badness(row) > _badness(of_name[row.implementation]):
            of_name[row.implementation] = row
    # the first text need not be one that has intermediates
    last = [name for name in ("vector", "vector, bit for bit") if name in worst]
    names = [name for name in worst if name not in last] + last
    columns = list(dict.fromkeys(row.implementation for row in result.rows))
    tolerance = result.manifest["tolerance"]
    texts, width = result.manifest["texts"], max(map(len, names))
    lines = [
        f"model  {result.manifest['model']['name']}, the weights of the file",
        f"texts  {len(texts)}, {sum(text['intermediates'] for text in texts)} of them with intermediates",
        "",
        "largest |difference| / largest |float64 of the file|, of the worst text; ids and bits: the part that differs",
        f"out of tolerance, marked *: {', '.join(f'{key} {value:.1e}' for key, value in tolerance.items())}",
        "",
        f"{'':{width}}" + "".join(f"{column:>20}" for column in columns),
    ]
    for name in names:
        cells = (worst[name].get(column) for column in columns)
        lines.append(f"{name:{width}}" + "".join(f"{'' if row is None else _cell(row):>20}" for row in cells))
    first = result.first_failure
    if first is None:
        verdict = "conforms: every array is within its tolerance"
    else:
        text = texts[first.text]["text"]
        shown = repr(text if len(text) <= 40 else text[:37] + "...")
        verdict = (
            f"does not conform: the first array out of tolerance is {first.name} of text {first.text}, {shown}, "
            f"{first.implementation}: error {first.max_rel:.2g}, tolerance {first.tolerance:.2g}"
        )
    return "\n".join(line.rstrip() for line in [*lines, "", verdict])


def _badness(row: "Row") -> float:
    return math.inf if math.isnan(row.max_rel) else row.max_rel


def _cell(row: "Row") -> str:
    return f"{row.max_rel:.1e}{' ' if row.conforms else '*'}"
