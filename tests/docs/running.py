"""Runs the code of a page in one folder: its Python blocks in one namespace, its commands through a shell."""

import ast
import builtins
import io
import itertools
import os
import re
import subprocess
import sys
import tokenize
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.docs.pages import ROOT, Block, blocks
from tests.docs.shown_output import agrees, matches

SHELL = ("sh", "bash", "console", "indented")
COMMANDS = ("minilm-np", "printf")  # the first words of the lines that are run; other lines install or measure
TIMEOUT_S = 300


class PageError(AssertionError):
    """A page shows something that is not so."""


def run_page(name: str, text: str, folder: Path) -> None:
    """Run a page's blocks in order, in `folder`, which is the current directory.

    Raises PageError, or what a block of Python raises, with a note that names the line.
    """
    namespace: dict[str, Any] = {"__name__": "manual_page"}
    of_page = list(blocks(text))
    for block, following in itertools.zip_longest(of_page, of_page[1:]):
        if block.not_run:
            continue
        if block.language in ("python", "diff"):
            _run_python(name, block, namespace)
        elif block.language in SHELL:
            output = _run_commands(name, block, folder)
            shown = following.code if following and _is_output_of(block, following, text) else None
            if output is not None and shown is not None and not matches(shown, output):
                raise PageError(f"{name}, block at line {block.line}: the commands print\n{output}not\n{shown}")


def _run_python(name: str, block: Block, namespace: dict[str, Any]) -> None:
    """Run a block of Python, or the new lines of a diff; a warning that the block causes is an error."""
    code = block.code
    if block.language == "diff":
        code = "\n".join("" if line.startswith("-") else line[1:] for line in code.split("\n"))
    code = "\n" * (block.line - 1) + code  # so that lines are those of the page
    printed: dict[int, str] = defaultdict(str)

    def recording_print(*values: Any, **options: Any) -> None:
        buffer = io.StringIO()
        builtins.print(*values, **{"file": buffer, **options})
        printed[sys._getframe(1).f_lineno] += buffer.getvalue()

    namespace["print"] = recording_print
    try:
        tree = ast.parse(code, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other libraries warn about themselves
            warnings.filterwarnings("error", module="manual_page|minilm_np")
            exec(compile(tree, name, "exec"), namespace)
    except Exception as error:
        error.add_note(f"in the Python block of {name} that begins at line {block.line}")
        raise
    comments = {token.start[0]: token.string for token in _tokens(code) if token.type == tokenize.COMMENT}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print":
            comment = comments.get(call.end_lineno or call.lineno, "").lstrip("# ")
            if comment and not agrees(comment, printed[call.lineno]):
                raise PageError(f"{name}, line {call.lineno}: this prints\n{printed[call.lineno]}not {comment}")


def _tokens(code: str) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(code).readline))


def _run_commands(name: str, block: Block, folder: Path) -> str | None:
    """Run the commands of a block and return what they print; None without any command to run."""
    commands = [found for line in _joined(block.code) if (found := _command(line))]
    if not commands:
        return None
    program = folder / ".bin" / "minilm-np"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m minilm_np "$@"\n')
    program.chmod(0o755)
    path = {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    output = ""
    for command in commands:
        ran = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", command],
            cwd=folder, env=os.environ | path, capture_output=True, encoding="utf-8", timeout=TIMEOUT_S,
        )  # fmt: skip
        if ran.returncode or "Traceback" in ran.stderr:
            raise PageError(
                f"{name}, block at line {block.line}: exit code {ran.returncode}: {command}\n{ran.stderr}{ran.stdout}"
            )
        output += ran.stdout
    return output


def _joined(code: str) -> list[str]:
    """The lines of a block; a line that ends in a backslash goes on in the next one."""
    return code.replace("\\\n", " ").split("\n")


def _command(line: str) -> str:
    """The part of a line that is run: the line itself, without an installation before it; or "" for no command."""
    line = re.sub(r"^pip install [^&|;]*&& ", "", line.removeprefix("$ "))
    return line if line.split(" ")[0] in COMMANDS else ""


def _is_output_of(block: Block, following: Block, text: str) -> bool:
    """Whether a block of text follows directly, with nothing but blank lines between."""
    between = text.split("\n")[block.line - 1 + block.code.count("\n") : following.line - 1]
    fences = ("```", "~~~")
    return following.language == "text" and all(not line.strip() or line.startswith(fences) for line in between)
