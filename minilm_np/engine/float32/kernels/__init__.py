"""The model's operations for Numba, each the twin of a function of `reference.py` and written into a given `out`.

To be read in this order: `simd` (what a vector is, and the register tile), `mathf` (exp, erf, GELU), `embeddings`,
`layer_norm`, `linear`, `attention`, `pooling`, then `forward`, which puts them in order, `layout` (what they find in
memory) and `entry` (what the outside calls). An operation knows none of the others, but for embeddings, which end in a
LayerNorm. Every kernel is serial, releases the GIL, allocates nothing, checks nothing, and takes ranges of rows,
panels, texts or heads, so that its caller can share it out; the bits of a result never depend on how.
"""
