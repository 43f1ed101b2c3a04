"""Build the libraries of kernels, or compare them with a new build.

    python -m minilm_np.engine.prebuilt build    compile and link for every target, and write the manifest
    python -m minilm_np.engine.prebuilt check    do the same elsewhere, and compare the bytes

Both take some minutes on Linux on x86-64, and need `pip install numba ziglang pyelftools`. `check` needs the versions
that manifest.json names.
"""

import argparse
import os
import sys
from pathlib import Path

from minilm_np.engine.prebuilt import build
from minilm_np.engine.runtime.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m minilm_np.engine.prebuilt", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("command", choices=["build", "check", "compile"], metavar="build | check")
    # of `compile`, the process of one package and target that the others start
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time (default: one per CPU)")
    options = parser.parse_args()
    if options.command == "compile":
        package, name, folder = options.arguments
        build.compile_package(package, next(target for target in TARGETS if target.name == name), Path(folder))
        return 0
    if options.command == "build":
        build.build(options.jobs)
        return 0
    differences = build.check(options.jobs)
    for difference in differences:
        print(difference)
    print("the libraries are not those of the sources" if differences else "a new build has the same bytes")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
