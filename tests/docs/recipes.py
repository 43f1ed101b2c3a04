"""Run the recipes that the tests leave out, because their libraries are large or have to be compiled.

    python -m tests.docs.recipes [LIBRARY ...]

runs each recipe of recipes.md that is marked "not run", or those of the named libraries, as the tests run the others.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from tests.docs.pages import ROOT, Block, blocks
from tests.docs.running import run_page

PAGE = ROOT / "minilm_np" / "docs" / "recipes.md"
SHARED = ("from minilm_np import", "import pandas as pd")  # blocks that later ones need begin with or contain these


def recipes_left_out() -> dict[str, Block]:
    """The blocks that are marked "not run: it needs LIBRARY, ...", by library."""
    found = [block for block in blocks(PAGE.read_text(encoding="utf-8")) if block.not_run]
    return {block.not_run.removeprefix("it needs ").split(",")[0]: block for block in found}


def run_recipe(library: str, folder: Path) -> None:
    """Run a recipe, after the blocks that it needs, in `folder`, the current directory. Raises as `run_page`."""
    recipe = recipes_left_out()[library]
    of_page = blocks(PAGE.read_text(encoding="utf-8"))
    needed = [block for block in of_page if not block.not_run and any(code in block.code for code in SHARED)]
    run_page(PAGE.name, "\n".join(f"```python\n{block.code}```\n" for block in [*needed, recipe]), folder)


def main(libraries: list[str]) -> None:
    for library in libraries or recipes_left_out():
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            begin = time.monotonic()
            run_recipe(library, Path(folder))
            print(f"{library}: runs ({time.monotonic() - begin:.0f} s)")
            os.chdir(ROOT)


if __name__ == "__main__":
    main(sys.argv[1:])
