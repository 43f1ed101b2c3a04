"""The disk space of packages with all their requirements, from the records of the installed distributions."""

import importlib.metadata
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.common import CHECKOUT


def installed_size(roots: Iterable[str]) -> dict[str, int]:
    """Return the bytes of each distribution that `roots` need, without extras and without compiled bytecode.

    A requirement that is not installed counts nothing: another distribution serves in its place.
    """
    waiting, found = [*roots], dict[str, int]()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[name] = _bytes(distribution)
        waiting += distribution.requires or []
    return found


def own_requirements() -> list[str]:
    """Return the requirements of this project, from pyproject.toml."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["dependencies"])


def _bytes(distribution: importlib.metadata.Distribution) -> int:
    paths = (distribution.locate_file(file) for file in distribution.files or () if file.suffix != ".pyc")
    return sum(path.stat().st_size for path in (Path(str(place)) for place in paths) if path.is_file())
