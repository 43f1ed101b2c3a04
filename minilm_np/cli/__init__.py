"""The command `minilm-np`: `main` runs one command line. Each group of commands has its own file.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed (one line says why), 2 wrong usage.
A reader that closes the pipe ends the command silently; Ctrl-C ends it with one line and code 130.

Reading order:

    options.py      options that several commands share, and loading the model
    files.py        reading texts, one per line; writing files atomically
    encoding.py     encoding texts a batch at a time, with progress and one warning for truncated texts
    printing.py     printing lines, JSON, and texts shortened to one line; the width of the terminal
    encode.py       `encode`: texts to vectors
    embed.py        `embed`: files of any size to a file of vectors
    line_table.py   the lines that a command found, as a table
    search.py       `similarity`, `search`, `cluster`: compare texts, search lines, group similar lines
    rerank.py       `rerank`: put lines in the order of their relevance to a query
    serve.py        `serve`: answer requests for vectors and scores over HTTP
    models.py       `fetch`, `info`: download a model, describe an installed one
    evaluate.py     `eval`: measure the quality of a model
    train.py        `train`: train a model on pairs of texts
    trace.py        `trace`: print every intermediate array of a text or a pair
    explain.py      `explain`: write a page that shows how a text becomes its vector
    verify.py       `verify`: compare with another implementation of the model
    diagnose.py     `diagnose`: explain why another implementation gives different vectors
    conformance.py  `conformance`: write or check a file that specifies what an implementation must compute
"""

import argparse
import contextlib
import errno
import io
import os
import sys
import warnings
from collections.abc import Sequence

import minilm_np
from minilm_np.errors import MiniLMError

try:
    from minilm_np.cli import (
        conformance,
        diagnose,
        embed,
        encode,
        evaluate,
        explain,
        models,
        rerank,
        search,
        serve,
        trace,
        train,
        verify,
    )
    from minilm_np.cli.options import HelpFormatter
except KeyboardInterrupt:  # these imports take most of the time of a short command
    print("minilm-np: interrupted", file=sys.stderr)
    sys.exit(130)

# In the order of --help. Each has `add(commands)`, which adds its parsers and names the functions that they run.
COMMANDS = (
    encode, embed, search, rerank, trace, explain, verify, diagnose, conformance, train, evaluate, serve, models,
)  # fmt: skip

DESCRIPTION = """\
Turn texts into vectors, and compare texts by the cosines of their vectors. The model is
sentence-transformers/all-MiniLM-L6-v2 (384 numbers per text) or another one of its family.
It is downloaded on first use (87 MB) and runs on the CPU.

example: minilm-np encode "A text" "Another one"
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # UTF-8 in every locale; names of files pass as they are
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    if sys.stderr is None:  # `minilm-np ... 2>&-`: `print` would write messages to stdout
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    try:
        options = _parsed(arguments)
        if sys.stdout is None:  # `minilm-np ... >&-`
            raise OSError(errno.EBADF, "standard output is closed")
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code: int = options.run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `minilm-np ... | head`
        _discard_stdout()
        return 0
    except KeyboardInterrupt:
        print("minilm-np: interrupted", file=sys.stderr)
        return 130
    except MiniLMError as error:
        print(f"minilm-np: error: {error}", file=sys.stderr)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"minilm-np: error: {where}{error.strerror or error}", file=sys.stderr)
        if error.errno in (errno.ENOSPC, errno.EIO):  # writing the rest of the buffer would fail too, with a traceback
            _discard_stdout()
    return 1


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read a command line. Raises SystemExit for wrong usage, and after --help and --version."""
    try:
        options, unknown = _parser().parse_known_args(arguments)
    except SystemExit:
        if sys.stdout is not None:
            sys.stdout.flush()  # now: `main` handles an error, and Python at its exit would print it
        raise
    if unknown:
        words = {"text", "query"} & vars(options).keys() and not any(word.startswith("-") for word in unknown)
        hint = ": put quotes around a text of several words" if words else ""
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    return options


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line, without the source line that Python adds."""
    print(f"minilm-np: warning: {message}", file=sys.stderr)


def _discard_stdout() -> None:
    """Send the rest of the output buffer to /dev/null, so that Python's flush at exit succeeds."""
    with contextlib.suppress(OSError, ValueError):  # a stdout without a file descriptor has nothing to discard
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="minilm-np", description=DESCRIPTION, formatter_class=HelpFormatter)
    parser.add_argument("--version", action="version", version=f"minilm-np {minilm_np.__version__}")
    parser.epilog = (
        "`minilm-np COMMAND --help` describes a command and its options, with an example.\n"
        "exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for module in COMMANDS:
        module.add(commands)
    return parser
