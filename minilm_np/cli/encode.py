"""`minilm-np encode`: texts to vectors."""

import argparse
import io
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from minilm_np.cli.encoding import Batch, TextEncoding
from minilm_np.cli.files import Lines, check_output, decoded, open_lines, write_atomically
from minilm_np.cli.options import add_command, add_model_options, add_vector_options, load, positive
from minilm_np.cli.printing import WIDE, columns, one_line, room_after

if TYPE_CHECKING:
    from minilm_np.cli.options import Commands

FIRST = 4  # numbers of a vector that the format "text" shows
TEXT_WIDTH, LEAST_TEXT = 60, 25  # columns of a text in that format


def add(commands: "Commands") -> None:
    """Add `encode` to the commands."""
    parser = add_command(
        commands,
        "encode",
        _encode,
        "turn texts into vectors",
        'minilm-np encode "A text" "Another one"',
        details="Print one line per text: the first numbers of its vector, its number of tokens, and the text.\n"
        "--format json, jsonl and npy write all numbers.\n"
        "For columns of tables, compressed files, and jobs that take long, use `minilm-np embed`.",
    )
    parser.add_argument(
        "texts", nargs="*", metavar="TEXT", help="the texts to encode; for the lines of a file, see --input"
    )
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
    add_vector_options(parser)
    add_model_options(parser)


def _encode(options: argparse.Namespace) -> int:
    if bool(options.texts) == (options.input is not None):
        options.parser.error("expected either texts as arguments or --input FILE (- for standard input)")
    if options.format == "npy" and options.output is None and sys.stdout.isatty():
        options.parser.error("--format npy is binary: name a file with --output, or redirect standard output")
    if options.output is not None:
        check_output(Path(options.output))
    with _texts(options) as texts:
        encoder = load(options)
        if options.max_length:
            encoder.max_seq_length = options.max_length
        encoding = TextEncoding(
            encoder,
            normalize=options.normalize,
            truncate_dim=options.truncate_dim,
            on_truncation=options.on_truncation,
        )
        kind = "text" if options.texts else "line"
        batches = encoding.batches(
            texts.numbered,
            lambda number, _: f"{kind} {number}",
            prompt_name=options.prompt_name,
            total=texts.total,
            quiet=options.output is None and sys.stdout.isatty(),  # the results are the progress
        )
        width = columns() if options.output is None else WIDE
        rendered = FORMATS[options.format](batches, Target(texts.total or 0, encoding.dimension, width))
        if options.output is None:
            for part in rendered:
                sys.stdout.buffer.write(part)
        else:
            write_atomically(Path(options.output), rendered)
    encoding.warn_if_truncated()
    return 0


def _texts(options: argparse.Namespace) -> AbstractContextManager[Lines]:
    if options.texts:
        _warn_of_files(options.texts)
        return nullcontext(Lines(enumerate(decoded(options.texts), 1), len(options.texts)))
    return open_lines(options.input, counted=options.format == "npy")


def _warn_of_files(texts: list[str]) -> None:
    """Issue a warning for a text that is probably meant as a file, as other commands take it."""
    for text in texts:
        if text == "-" or os.path.isfile(text):
            file = "standard input" if text == "-" else "that file"
            warnings.warn(
                f"{text!r} is encoded as a text: to encode the lines of {file}, use --input {text}", stacklevel=4
            )


# ---- formats: each turns batches into bytes as they come -------------------------------------------------------------


class Target(NamedTuple):
    """What a format must know before the first batch."""

    n_texts: int  # 0 if unknown
    dimension: int  # numbers per vector
    width: int  # columns of a line for people


def _as_text(batches: Iterable[Batch], target: Target) -> Iterator[bytes]:
    """One readable line per text: the first numbers of its vector, its number of tokens, and the text."""
    room = target.width - LEAST_TEXT - len(f"[ ... {target.dimension} numbers]  256 tokens  ")
    first = max(1, min(FIRST, room // 11))  # a number and a space
    for batch in batches:
        for text, vector, n_tokens, truncated in zip(*batch[1:], strict=True):
            numbers = " ".join(f"{number:10.7f}" for number in vector[:first])
            note = " (truncated)" if truncated else ""
            start = f"[{numbers} ... {len(vector)} numbers]  {n_tokens:3d} tokens{note}  "
            yield f"{start}{one_line(text, room_after(start, TEXT_WIDTH, target.width))}\n".encode()


def _objects(batches: Iterable[Batch]) -> Iterator[str]:
    """One JSON object per text."""
    for batch in batches:
        for text, vector, n_tokens, truncated in zip(*batch[1:], strict=True):
            # str of a float32 is the shortest decimal that reads back as the same bits
            embedding = ", ".join(str(number) for number in vector)
            head = json.dumps({"text": text, "n_tokens": n_tokens, "truncated": truncated}, ensure_ascii=False)
            yield f'{head[:-1]}, "embedding": [{embedding}]}}'


def _as_json(batches: Iterable[Batch], _: Target) -> Iterator[bytes]:
    separator = "["
    for item in _objects(batches):
        yield f"{separator}{item}".encode()
        separator = ",\n "
    yield b"]\n"


def _as_jsonl(batches: Iterable[Batch], _: Target) -> Iterator[bytes]:
    for item in _objects(batches):
        yield f"{item}\n".encode()


def _as_npy(batches: Iterable[Batch], target: Target) -> Iterator[bytes]:
    """The bytes that `numpy.save` writes."""
    header = io.BytesIO()
    shape = (target.n_texts, target.dimension)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    yield header.getvalue()
    for batch in batches:
        yield batch.vectors.astype("<f4", copy=False).tobytes()


FORMATS = {"text": _as_text, "json": _as_json, "jsonl": _as_jsonl, "npy": _as_npy}
