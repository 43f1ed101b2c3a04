"""`minilm-np encode`: texts to vectors."""

import argparse
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minilm_np.cli.files import check_output, decoded, read_lines, write_whole
from minilm_np.cli.options import add_command, add_model_options, encode, load, positive
from minilm_np.sentence_encoder import SentenceEncoder


def add(commands: Any) -> None:
    parser = add_command(
        commands, "encode", _encode, "turn texts into vectors", 'minilm-np encode "A text" "Another one"'
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="the texts to encode")
    parser.add_argument("--input", metavar="FILE", help="read a text a line (UTF-8) from FILE, - for standard input")
    parser.add_argument("--output", metavar="FILE", help="write to FILE (appears when it is whole), not to stdout")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="text: a line a text for people; json: a list of objects with text, n_tokens, truncated and embedding; "
        "jsonl: such an object a line; npy: a float32 array (default: %(default)s)",
    )
    add_model_options(parser)
    parser.add_argument(
        "--batch-size", type=positive, default=32, metavar="N", help="accepted; memory is bounded by tokens anyway"
    )


def _encode(options: argparse.Namespace) -> int:
    if bool(options.texts) == (options.input is not None):
        options.parser.error("expected texts as arguments, or --input FILE (- for standard input), and not both")
    if options.format == "npy" and options.output is None and sys.stdout.isatty():
        options.parser.error("--format npy is binary: name a file with --output, or redirect")
    if options.output is not None:
        check_output(Path(options.output))
    texts: list[str] = decoded(options.texts) if options.texts else read_lines(options.input)
    encoder = load(options)
    vectors = encode(encoder, texts, lambda row: f"{'text' if options.texts else 'line'} {row + 1}")
    rendered = FORMATS[options.format](encoder, texts, vectors)
    if options.output is None:
        for part in rendered:
            sys.stdout.buffer.write(part)
    else:
        write_whole(Path(options.output), rendered)
    return 0


def _as_text(encoder: SentenceEncoder, texts: list[str], vectors: Any) -> Iterator[bytes]:
    """A readable line a text: the first numbers of its vector, its tokens, the text."""
    tokenized = encoder.tokenizer(texts)
    for text, ids, truncated, vector in zip(texts, tokenized.ids, tokenized.truncated, vectors, strict=True):
        first = " ".join(f"{number:10.7f}" for number in vector[:4])
        note = f" (cut at {len(ids)})" if truncated else ""
        shown = "".join(c if c.isprintable() else " " for c in text[:200])
        shown = shown if len(text) <= 60 else shown[:57] + "..."
        yield f"[{first} ... {len(vector)} numbers]  {len(ids):3d} tokens{note}  {shown}\n".encode()


def _objects(encoder: SentenceEncoder, texts: list[str], vectors: Any) -> Iterator[str]:
    tokenized = encoder.tokenizer(texts)
    for text, ids, truncated, vector in zip(texts, tokenized.ids, tokenized.truncated, vectors, strict=True):
        # repr of a float32 is the shortest decimal that reads back as the same bits
        embedding = ", ".join(str(number) for number in vector)
        head = json.dumps({"text": text, "n_tokens": len(ids), "truncated": truncated}, ensure_ascii=False)
        yield f'{head[:-1]}, "embedding": [{embedding}]}}'


def _as_json(encoder: SentenceEncoder, texts: list[str], vectors: Any) -> Iterator[bytes]:
    separator = "["
    for item in _objects(encoder, texts, vectors):
        yield f"{separator}{item}".encode()
        separator = ",\n "
    yield b"]\n" if texts else b"[]\n"


def _as_jsonl(encoder: SentenceEncoder, texts: list[str], vectors: Any) -> Iterator[bytes]:
    for item in _objects(encoder, texts, vectors):
        yield f"{item}\n".encode()


def _as_npy(encoder: SentenceEncoder, texts: list[str], vectors: Any) -> Iterator[bytes]:
    buffer = io.BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    yield buffer.getvalue()


FORMATS = {"text": _as_text, "json": _as_json, "jsonl": _as_jsonl, "npy": _as_npy}
