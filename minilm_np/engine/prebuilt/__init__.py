"""Kernels that were compiled in advance, and the command that builds them.

    *-*.so          one shared library per package of kernels and target, for Linux
    manifest.json   what they were made of: digests of the sources, versions of the tools; and their SHA-256
    build.py        compiles, links and compares; for maintainers
    elf.py          what a library may contain

`engine/runtime/targets.py` lists the targets, and `engine/runtime/libraries.py` chooses and loads a library. After a
change of any source of the kernels, run

    python -m minilm_np.engine.prebuilt build

on Linux on x86-64: it compiles for every target. The same sources and versions of the tools give the same bytes, so
anybody can compare the libraries with their sources: `python -m minilm_np.engine.prebuilt check`.
"""
