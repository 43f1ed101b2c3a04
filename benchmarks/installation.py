"""What an installation weighs: every package of a fresh virtual environment, and which of them a start imports.

    python -m benchmarks.installation [--against fastembed] [--json FILE]

installs this checkout and the other package with pip, each into its own environment, and counts the bytes of the
installed files. It needs a package index. Then a warm start in our environment, one text encoded with the compiled
kernels, shows which packages it imports: the others only take space.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import CHECKOUT, markdown, say, write_json

# Printed as JSON: package -> bytes of its files, and of its compiled bytecode
SIZES = """
import importlib.metadata, json, os
found = {}
for distribution in importlib.metadata.distributions():
    sizes = {True: 0, False: 0}
    for file in distribution.files or ():
        path = distribution.locate_file(file)
        if os.path.isfile(path):
            sizes[file.suffix == ".pyc"] += os.path.getsize(path)
    found[distribution.name] = [sizes[False], sizes[True]]
print(json.dumps(found))
"""
# Printed as JSON: the packages of which a start imports a module
IMPORTED = """
import importlib.metadata, json, sys
from minilm_np import SentenceEncoder
SentenceEncoder().encode("This is an example sentence")
roots = {name.partition(".")[0] for name in sys.modules}
owners = importlib.metadata.packages_distributions()
print(json.dumps(sorted({owner for root in roots for owner in owners.get(root, ())})))
"""
TOOLS = ("pip", "setuptools")  # of the environment, not of an installation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="fastembed", help="the other package (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, requirement in (("minilm-np", str(CHECKOUT)), (options.against, options.against)):
            result[name] = installed(Path(folder) / name, requirement)
        python = Path(folder) / "minilm-np" / "bin" / "python"
        for _ in range(2):  # the first start compiles
            result["imported"] = json.loads(_run([str(python), "-I", "-c", IMPORTED], cwd=folder))
    for line in report(result, options.against):
        print(line)
    if options.json:
        write_json(options.json, result)


def installed(folder: Path, requirement: str) -> dict[str, Any]:
    """Install into a new environment. Return the seconds, and the bytes of each package."""
    say(f"installing {requirement} ...")
    _run([sys.executable, "-m", "venv", str(folder)])
    python = str(folder / "bin" / "python")
    begin = time.perf_counter()
    _run([python, "-m", "pip", "install", "-qqq", requirement])
    seconds = time.perf_counter() - begin
    sizes = {name: size for name, size in json.loads(_run([python, "-I", "-c", SIZES])).items() if name not in TOOLS}
    return {"seconds": seconds, "sizes": sizes}


def report(result: dict[str, Any], against: str) -> list[str]:
    """Return the result for people."""
    lines = []
    for name in ("minilm-np", against):
        sizes = result[name]["sizes"]
        files, bytecode = (sum(size[column] for size in sizes.values()) / 1e6 for column in (0, 1))
        lines.append(
            f"{name}: {files + bytecode:.0f} MB in {len(sizes)} packages, of them {bytecode:.0f} MB of bytecode; "
            f"installed in {result[name]['seconds']:.0f} s"
        )
        imported = result["imported"] if name == "minilm-np" else []
        rows = [
            [package, f"{own / 1e6:.1f} MB", f"{compiled / 1e6:.1f} MB", "yes" if package in imported else ""]
            for package, (own, compiled) in sorted(sizes.items(), key=lambda item: -sum(item[1]))
        ]
        lines += ["", markdown(["package", "files", "bytecode", "imported at a warm start"], rows), ""]
    return lines


def _run(command: list[str], cwd: str | None = None) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=cwd).stdout


if __name__ == "__main__":
    main()
