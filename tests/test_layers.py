"""The rooms of the package import downwards only, and a call of `encode` crosses few files."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from minilm_np import SentenceEncoder
from tests.support.places import CHECKOUT

PACKAGE = CHECKOUT / "minilm_np"

# From the lowest to the highest. A room may import from the rows above its own in this list.
LAYERS = (
    ("errors",),
    ("_checks", "_files", "_forks", "_progress"),
    ("_text_files",),
    ("vectors",),
    ("model_files",),
    ("reference_variants",),
    ("reference",),
    ("text",),
    ("engine",),
    ("encoding",),
    ("trace",),
    ("sentence_encoder", "cross_encoder"),
    ("util",),
    ("evaluation",),
    ("pages",),
    ("train", "verify", "integrations", "jobs", "server"),
    ("explain",),
    ("cli",),
    ("__main__",),
)
HEIGHT = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}
MOST_ROOMS = 27  # modules and packages directly under minilm_np/
MOST_FILES = 9  # that encode("a") crosses before the kernels

Import = tuple[Path, str, int]


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The modules and names that a file imports, inside functions too, but not those for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if is_for_type_checkers(node):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, "relative imports hide the room"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        yield from imports(node)


def all_modules() -> dict[str, Path]:
    return {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def edges() -> dict[str, dict[str, int]]:
    """Module -> the modules of the package that it imports, with the line."""
    modules = all_modules()
    found: dict[str, dict[str, int]] = {}
    for module, path in modules.items():
        found[module] = {}
        for name, line in imports(ast.parse(path.read_text(encoding="utf-8"))):
            while name not in modules and "." in name:
                name = name.rpartition(".")[0]
            if name in modules and name not in ("minilm_np", module):
                found[module][name] = line
    return found


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_has_a_layer() -> None:
    rooms = {room(module) for module in all_modules() if module != "minilm_np"}
    assert rooms <= HEIGHT.keys()
    assert len(rooms - {"__main__"}) <= MOST_ROOMS


def test_rooms_import_downwards_only() -> None:
    upward = [
        f"{source}:{line} imports {target}"
        for source, targets in edges().items()
        if source != "minilm_np"
        for target, line in targets.items()
        if room(source) != room(target) and HEIGHT[room(target)] >= HEIGHT[room(source)]
    ]
    assert upward == []


def test_no_modules_import_each_other() -> None:
    """No chain of imports leads back to the module where it starts."""
    graph = edges()
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module in done:
            return
        for target in graph[module]:
            visit(target, (*path, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    source = "def f():\n    from minilm_np.cli import main\nif TYPE_CHECKING:\n    import minilm_np.train\n"
    assert list(imports(ast.parse(source))) == [("minilm_np.cli.main", 2)]
    assert HEIGHT["cli"] > HEIGHT["engine"]


@pytest.mark.parametrize("threads", [1, 2])
def test_encode_crosses_few_files(threads: int) -> None:
    """Files of the package with a function that runs between the call of `encode` and its return."""
    encoder = SentenceEncoder.random(threads=threads)
    encoder.encode("a")
    crossed: set[str] = set()

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if frame.f_code.co_filename.startswith(str(PACKAGE)):
            crossed.add(str(Path(frame.f_code.co_filename).relative_to(PACKAGE)))

    sys.setprofile(profile)
    try:
        encoder.encode("a")
    finally:
        sys.setprofile(None)
    assert len(crossed) <= MOST_FILES, sorted(crossed)
