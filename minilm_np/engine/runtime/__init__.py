"""What compiled engines share. Read in this order:

    simd/              the vector instructions that kernels are written in
    compilation.py     a kernel to object code, with Numba
    code_cache.py      object code on disk, and its functions in this process, without Numba
    sources.py         the source files that a module is made of
    trusted_folder.py  files that only the user or root can write, and a lock between processes
    processor.py       the host's CPU, and the float mode in which kernels run
    workers.py         helper threads

No file here depends on a model. An engine has a package of kernels with a module `entry`, which
`code_cache.load_entries` compiles or loads.
"""

NEEDS_NUMBA = "backend 'numba' needs Numba, which is not installed: `pip install numba`, or use backend 'numpy'"

try:
    import llvmlite  # noqa: F401 - Numba brings it, and every module of this folder needs it
except ModuleNotFoundError as error:
    import minilm_np.errors  # not `from ... import`: `code_cache` would take it for a source of the kernels

    raise minilm_np.errors.MissingExtraError(NEEDS_NUMBA) from error
