"""The float32 engine, the default: the same bits on every CPU. Read in this order:

    CONTRACT.md     the numerical contract: what decides the bits of a vector
    kernels/        the model's operations, one file each
    packing.py      the model's weights in the layout of the kernels
    loading.py      the compiled kernels as Python functions
    engine.py       `Float32Engine`: workspaces, passes, threads

Every file here is subject to the contract: a change of any bit is a new version of it.
"""
