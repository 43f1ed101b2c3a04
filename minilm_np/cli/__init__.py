"""The command `minilm-np`: what it does is in a file a group of commands. Results go to stdout, all else to stderr.

Exit codes: 0 done, 1 failed (one line says why), 2 wrong usage. SIGPIPE and Ctrl-C end it quietly.
"""

import argparse
import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import minilm_np
from minilm_np.errors import MiniLMError

try:
    from minilm_np.cli import conformance, diagnose, encode, evaluate, models, search, trace, train, verify
except KeyboardInterrupt:  # most of a short command's time goes by here
    print("minilm-np: interrupted", file=sys.stderr)
    sys.exit(130)

# in the order of --help; each has add(commands), and the functions that it names there
COMMANDS = (encode, search, trace, verify, diagnose, conformance, train, evaluate, models)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        words = {"text", "query"} & vars(options).keys() and not any(word.startswith("-") for word in unknown)
        hint = ": put quotes around a text of several words" if words else ""
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
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

    for module in COMMANDS:
        module.add(commands)
    return parser
