"""`minilm-np encode`: texts to vectors."""

import argparse
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from minilm_np.cli.files import check_output, decoded, read_lines, write_atomically
from minilm_np.cli.options import Encoded, add_command, add_model_options, encode_with_tokens, load, positive
from minilm_np.cli.printing import one_line

if TYPE_CHECKING:
    from minilm_np.cli.options import Commands


def add(commands: "Commands") -> None:
    """Add `encode` to the commands."""
    parser = add_command(
        commands,
        "encode",
        _encode,
        "turn texts into vectors",
        'minilm-np encode "A text" "Another one"',
        details="Print one line per text: the first numbers of its vector, its number of tokens, and the text.\n"
        "--format json, jsonl and npy write all numbers.",
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="the texts to encode")
    parser.add_argument("--input", metavar="FILE", help="read one text per line (UTF-8) from FILE; - is standard input")
    parser.add_argument("--output", metavar="FILE", help="write to FILE, atomically, instead of standard output")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="text: one line per text, for people; json: one list of objects with text, n_tokens, truncated and "
        "embedding; jsonl: one such object per line; npy: one float32 array (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=32,
        metavar="N",
        help="accepted and unused: batches are bounded by tokens, not by texts",
    )
    add_model_options(parser)


def _encode(options: argparse.Namespace) -> int:
    if bool(options.texts) == (options.input is not None):
        options.parser.error("expected either texts as arguments or --input FILE (- for standard input)")
    if options.format == "npy" and options.output is None and sys.stdout.isatty():
        options.parser.error("--format npy is binary: name a file with --output, or redirect standard output")
    if options.output is not None:
        check_output(Path(options.output))
    texts: list[str] = decoded(options.texts) if options.texts else read_lines(options.input)
    kind = "text" if options.texts else "line"
    encoded = encode_with_tokens(load(options), texts, lambda row: f"{kind} {row + 1}")
    rendered = FORMATS[options.format](texts, encoded)
    if options.output is None:
        for part in rendered:
            sys.stdout.buffer.write(part)
    else:
        write_atomically(Path(options.output), rendered)
    return 0


def _as_text(texts: list[str], encoded: Encoded) -> Iterator[bytes]:
    """One readable line per text: the first numbers of its vector, its number of tokens, and the text."""
    for text, vector, n_tokens, truncated in zip(texts, *encoded, strict=True):
        first = " ".join(f"{number:10.7f}" for number in vector[:4])
        note = " (truncated)" if truncated else ""
        line = f"[{first} ... {len(vector)} numbers]  {n_tokens:3d} tokens{note}  {one_line(text, 60)}"
        yield f"{line}\n".encode()


def _objects(texts: list[str], encoded: Encoded) -> Iterator[str]:
    """One JSON object per text."""
    for text, vector, n_tokens, truncated in zip(texts, *encoded, strict=True):
        # str of a float32 is the shortest decimal that reads back as the same bits
        embedding = ", ".join(str(number) for number in vector)
        head = json.dumps({"text": text, "n_tokens": n_tokens, "truncated": truncated}, ensure_ascii=False)
        yield f'{head[:-1]}, "embedding": [{embedding}]}}'


def _as_json(texts: list[str], encoded: Encoded) -> Iterator[bytes]:
    separator = "["
    for item in _objects(texts, encoded):
        yield f"{separator}{item}".encode()
        separator = ",\n "
    yield b"]\n" if texts else b"[]\n"


def _as_jsonl(texts: list[str], encoded: Encoded) -> Iterator[bytes]:
    for item in _objects(texts, encoded):
        yield f"{item}\n".encode()


def _as_npy(_: list[str], encoded: Encoded) -> Iterator[bytes]:
    buffer = io.BytesIO()
    np.save(buffer, encoded.vectors, allow_pickle=False)
    yield buffer.getvalue()


FORMATS = {"text": _as_text, "json": _as_json, "jsonl": _as_jsonl, "npy": _as_npy}
