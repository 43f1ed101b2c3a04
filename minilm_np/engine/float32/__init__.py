"""The float32 engine, the default: the same bits on every CPU. Read in this order:

CONTRACT.md     the numerical contract: what the bits of a vector are
kernels/        the model's operations, one file each
packing.py      the model's weights in the layout of the kernels
loading.py      the compiled kernels as Python functions
engine.py       `Float32Engine`: workspaces, passes, threads
"""
