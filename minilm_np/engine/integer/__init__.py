"""The integer engine: dense layers that multiply integers, exactly. Read in this order:

CONTRACT.md     the numerical contracts int16-1 and int8-1, and why these schemes
reference.py    the quantised model in NumPy; every number of it can be checked by hand
kernels/        the same model in compiled code, with one way to multiply per instruction set
packing.py      the model's weights as integers, in the layout of the kernels
loading.py      the compiled kernels as Python functions
engine.py       `IntegerEngine`: the float32 engine's passes and threads, with these weights and kernels
"""
