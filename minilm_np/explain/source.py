"""The lines of `reference.py` that compute a step, cut out of the file that runs."""

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import NamedTuple

from minilm_np import reference
from minilm_np.reference import Array


class Excerpt(NamedTuple):
    """Lines of `reference.py`: the number of the first and the last, and the code without common indentation."""

    first: int
    last: int
    code: str


def lines_of(name: str) -> list[Excerpt]:
    """Return the lines that compute the intermediate `name`, then each function of the module that they call."""
    function, recorded = _place(name)
    statements = _statements(function, recorded)
    source, start = inspect.getsourcelines(function)
    first, last = statements[0].lineno, statements[-1].end_lineno or 0
    code = textwrap.dedent("".join(source[first - 1 : last]))
    excerpts = [Excerpt(start + first - 1, start + last - 1, code)]
    called = dict.fromkeys(
        node.func.id
        for statement in statements
        for node in ast.walk(statement)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    )
    for other in called:
        if (
            isinstance(found := getattr(reference, other, None), FunctionType)
            and found.__module__ == reference.__name__
        ):
            body, start = inspect.getsourcelines(found)
            excerpts.append(Excerpt(start, start + len(body) - 1, "".join(body)))
    return excerpts


def _place(name: str) -> tuple[Callable[..., Array], str]:
    """The function that records an intermediate, and the name that it passes to `record`."""
    if name.startswith("embeddings."):
        return reference.embeddings, name.removeprefix("embeddings.")
    if name.startswith("encoder.layer."):
        rest = name.split(".", 3)[3]
        of_attention = rest.startswith("attention.self.")
        return (
            (reference.self_attention, rest.removeprefix("attention.self."))
            if of_attention
            else (reference.layer, rest)
        )
    return reference.forward, name


def _statements(function: Callable[..., Array], recorded: str) -> list[ast.stmt]:
    """The statement that records, after those that assign the names in the recorded expression.

    A name that is recorded, too, is the result of another step, and its assignment is left out.
    """
    simple = list(_simple_statements(_tree(function)))
    for number, statement in enumerate(simple):
        for node in ast.walk(statement):
            if _is_record(node) and isinstance(node, ast.Call) and ast.literal_eval(node.args[0]) == recorded:
                used = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
                before = [earlier for earlier in simple[:number] if _assigns(earlier, used)]
                return [*before, statement]
    raise LookupError(f"{function.__name__}: expected a call record({recorded!r}, ...), found none")


@functools.cache
def _tree(function: Callable[..., Array]) -> ast.AST:
    return ast.parse(inspect.getsource(function)).body[0]


def _simple_statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Statements that contain no others, in the order of the source."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Assign | ast.Return):
            yield child
        elif isinstance(child, ast.stmt):
            yield from _simple_statements(child)


def _is_record(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "record"


def _assigns(statement: ast.stmt, names: set[str]) -> bool:
    """Whether a statement assigns one of the names alone, without recording anything."""
    if not isinstance(statement, ast.Assign) or any(
        isinstance(node, ast.Name) and node.id == "record" for node in ast.walk(statement)
    ):
        return False
    return any(isinstance(target, ast.Name) and target.id in names for target in statement.targets)
