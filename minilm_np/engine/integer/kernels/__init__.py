"""The quantised model in compiled code; integer products use the fastest instructions of each processor.

Read in this order:

    layout.py       how rows and weights lie in memory
    quantise.py     rows of float32 to rows of integers
    products.py     the exact sums of a block, by tiles or by vectors
    linear.py       dense layers: exact sums, scales, bias, GELU or residual
    embeddings.py   embeddings from a word table of 16 bits
    weights.py      a float32 weight to rows of integers
    passes.py       the record that describes a pass
    forward.py      the order of the kernels
    entry.py        the functions that Python calls

The instructions are in `runtime/simd/integers.py` and `runtime/simd/tiles.py`. `runtime/integer_target.py` chooses
among them.
"""
