"""The command `minilm-np`: encode texts, fetch a model, say what is there. Results go to stdout, all else to stderr.

Exit codes: 0 done, 1 failed (one line says why), 2 wrong usage. SIGPIPE and Ctrl-C end it quietly.
"""

import argparse
import contextlib
import errno
import importlib.metadata
import io
import json
import os
import platform
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

import minilm_np
from minilm_np import hub
from minilm_np.errors import InputValueError, MiniLMError
from minilm_np.manifest import DEFAULT_MODEL, matches_manifest
from minilm_np.sentence_encoder import BACKENDS, SentenceEncoder

LONG_WORK = 200  # texts from which a progress bar is worth the line it takes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        if sys.stdout is None:  # `minilm-np ... >&-`
            raise OSError(errno.EBADF, "standard output is closed")
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code: int = options.run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `minilm-np ... | head`
        _forget_stdout()
        return 0
    except KeyboardInterrupt:
        print("minilm-np: interrupted", file=sys.stderr)
        return 130
    except MiniLMError as error:
        print(f"minilm-np: error: {error}", file=sys.stderr)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"minilm-np: error: {where}{error.strerror or error}", file=sys.stderr)
        if error.errno in (errno.ENOSPC, errno.EIO):  # what is left in the buffer would fail again, with a traceback
            _forget_stdout()
    return 1


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line; Python's own way shows the line of code that it comes from too."""
    print(f"minilm-np: warning: {message}", file=sys.stderr)


def _forget_stdout() -> None:
    """Let what could not be written to stdout, and Python's own flush at exit, go nowhere."""
    with contextlib.suppress(OSError, ValueError):  # a stdout without a descriptor has nothing to forget
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minilm-np",
        description="Sentence vectors from all-MiniLM-L6-v2 (and its family) in NumPy and Numba.",
    )
    parser.add_argument("--version", action="version", version=f"minilm-np {minilm_np.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    encode = _command(commands, "encode", _encode, "turn texts into vectors", 'minilm-np encode "A text" "Another one"')
    encode.add_argument("texts", nargs="*", metavar="TEXT", help="the texts to encode")
    encode.add_argument("--input", metavar="FILE", help="read a text a line (UTF-8) from FILE, - for standard input")
    encode.add_argument("--output", metavar="FILE", help="write to FILE (appears when it is whole), not to stdout")
    encode.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="text: a line a text for people; json: a list of objects with text, n_tokens, truncated and embedding; "
        "jsonl: such an object a line; npy: a float32 array (default: %(default)s)",
    )
    _model_options(encode)
    encode.add_argument(
        "--batch-size", type=_positive, default=32, metavar="N", help="accepted; memory is bounded by tokens anyway"
    )

    fetch = _command(
        commands, "fetch", _fetch, "download a model and check it", "minilm-np fetch --to ./all-MiniLM-L6-v2"
    )
    fetch.add_argument("name", nargs="?", default=DEFAULT_MODEL, help="the model (default: %(default)s)")
    fetch.add_argument("--to", metavar="DIR", help="the folder to put it in (default: a cache folder)")

    info = _command(commands, "info", _info, "say what model, from where, and which versions", "minilm-np info")
    _model_options(info)
    info.add_argument("--format", choices=("text", "json"), default="text", help="(default: %(default)s)")
    return parser


def _command(commands: Any, name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a name, or a folder (default: %(default)s)")
    parser.add_argument("--backend", choices=BACKENDS, default=BACKENDS[0], help="(default: %(default)s)")
    parser.add_argument("--threads", type=_positive, metavar="N", help="of the numba backend (default: all it may use)")


def _positive(text: str) -> int:
    if not re.fullmatch("0*[1-9][0-9]{0,17}", text):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


# ---- encode ----------------------------------------------------------------------------------------------------------


def _encode(options: argparse.Namespace) -> int:
    if bool(options.texts) == (options.input is not None):
        options.parser.error("expected texts as arguments, or --input FILE (- for standard input), and not both")
    if options.format == "npy" and options.output is None and sys.stdout.isatty():
        options.parser.error("--format npy is binary: name a file with --output, or redirect")
    if options.output is not None:
        _check_output(Path(options.output))
    texts: list[str] = _decoded(options.texts) if options.texts else _read_lines(options.input)
    encoder = SentenceEncoder(options.model, backend=options.backend, threads=options.threads)
    show_progress_bar = sys.stderr.isatty() and len(texts) >= LONG_WORK
    vectors = encoder.encode(texts, batch_size=options.batch_size, show_progress_bar=show_progress_bar)
    rendered = FORMATS[options.format](encoder, texts, vectors)
    if options.output is None:
        for part in rendered:
            sys.stdout.buffer.write(part)
    else:
        _write_whole(Path(options.output), rendered)
    return 0


def _check_output(path: Path) -> None:
    """Refuse before the work what could not be written after it."""
    if path.is_dir():
        raise InputValueError(f"--output {path}: it is a folder: name a file in it")
    if not path.parent.is_dir():
        raise InputValueError(f"--output {path}: there is no folder {path.parent}: make it first")
    if not os.access(path if path.exists() and not path.is_file() else path.resolve().parent, os.W_OK):
        raise InputValueError(f"--output {path}: the folder {path.resolve().parent} is not writable: choose another")


def _decoded(texts: list[str]) -> list[str]:
    """Arguments that are not UTF-8 reach Python with surrogates in them; say which, as for a file."""
    for number, text in enumerate(texts, 1):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputValueError(f"text {number} of the command line is not UTF-8: {os.fsencode(text)!r}") from None
    return texts


def _read_lines(path: str) -> list[str]:
    """The lines of a UTF-8 file, without their ends (\\n or \\r\\n); an empty line is an empty text."""
    where = "standard input" if path == "-" else path
    if path == "-" and sys.stdin is None:
        raise InputValueError("--input -: standard input is closed")
    raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    lines = raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            texts.append(line.removesuffix(b"\r").decode())
        except UnicodeDecodeError as error:
            raise InputValueError(
                f"{where}, line {number}: not UTF-8 (byte 0x{line[error.start]:02x} at position {error.start}): "
                "convert the file first, for example with iconv"
            ) from None
    return texts


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


def _write_whole(path: Path, parts: Iterator[bytes]) -> None:
    """Write a file that is there when it is whole, and not before; a device such as /dev/null as it is."""
    if path.exists() and not path.is_file():
        with path.open("wb") as device:
            device.writelines(parts)
        return
    with _temporary_beside(path.resolve()) as file:  # a link stays a link
        file.writelines(parts)


@contextlib.contextmanager
def _temporary_beside(path: Path) -> Iterator[IO[bytes]]:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(file.fileno(), 0o666 & ~umask)  # mkstemp's 0600 is for secrets
            yield file
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


# ---- fetch and info --------------------------------------------------------------------------------------------------


def _fetch(options: argparse.Namespace) -> int:
    folder = hub.fetch(options.name, to=options.to)
    print(folder.path)
    return 0


def _info(options: argparse.Namespace) -> int:
    encoder = SentenceEncoder(options.model, backend=options.backend, threads=options.threads)
    config, folder = encoder.config, encoder.folder
    assert folder is not None  # it was loaded from somewhere
    published = folder.name if folder.verified else matches_manifest(folder.path)
    facts: dict[str, Any] = {
        "model": published or folder.name or "(no name)",
        "path": str(folder.path),
        "source": folder.source,
        "verified": published is not None,
        "parameters": sum(array.size for array in encoder.weights.values()),
        "dimension": encoder.get_sentence_embedding_dimension(),
        "max_seq_length": encoder.max_seq_length,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "feed_forward": config.intermediate_size,
        "vocabulary": config.vocab_size,
        "pooling": config.pooling_mode,
        "normalize": config.normalize,
        "backend": encoder.backend,
        "threads": encoder.threads,
        # two machines that print the same fingerprint make the same vectors, bit for bit
        "fingerprint": encoder.fingerprint() if encoder.backend == "numba" else None,
        "versions": {"minilm-np": minilm_np.__version__, "python": platform.python_version()}
        | {name: _version(name) for name in ("numpy", "numba", "safetensors", "tokenizers")},
        "machine": f"{platform.system()} {platform.machine()}",
    }
    if options.format == "json":
        print(json.dumps(facts, indent=2))
        return 0
    for name, fact in facts.items():
        print(f"{name.replace('_', ' '):16}{_for_people(name, fact)}")
    return 0


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # the NumPy backend runs without Numba
        return "(not installed)"


def _for_people(name: str, fact: Any) -> str:
    if name == "verified":
        return "yes, every file has the published SHA-256" if fact else "no: no manifest has these bytes"
    if isinstance(fact, bool):
        return "yes" if fact else "no"
    if fact is None:
        return "(the NumPy backend decides neither its threads nor its last bits)"
    if isinstance(fact, dict):
        return ", ".join(f"{key} {value}" for key, value in fact.items())
    return f"{fact:,}" if isinstance(fact, int) else str(fact)
