"""Exact products of integer matrices for Numba, by each processor's own instructions.

Read in this order: `layout` (how rows and weights lie in memory), `quantise` (rows of float32 to rows of integers),
`products` (the sums of a block, by tiles or vectors), `linear` (dense layers). The instructions are those of
`runtime/simd/integers.py` and `runtime/simd/tiles.py`; `runtime/processor.py` chooses among them.
"""
