"""What compiled engines share. Read in this order:

    simd/              the vector instructions that kernels are written in
    compilation.py     a kernel to object code, with Numba
    sources.py         the source files that a module is made of
    targets.py         the processors for which kernels are compiled in advance
    integer_target.py  the instructions that multiply integers on this machine
    libraries.py       kernels that were compiled in advance, without Numba and LLVM
    code_cache.py      kernels that are compiled on this machine, and their cache on disk; imports LLVM (`llvm.py`)
    entries.py         the functions of a package of kernels, from either
    numba_settings.py  the settings of Numba that change code
    trusted_folder.py  files that only the user or root can write, and a lock between processes
    processor.py       the float mode in which kernels run
    workers.py         helper threads

No file here depends on a model. An engine has a package of kernels with a module `entry`, which `entries.load_entries`
loads or compiles. The libraries are in `engine/prebuilt`.
"""
