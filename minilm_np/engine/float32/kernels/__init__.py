"""The model's operations for Numba. Each is the twin of a function of `reference.py`. Read in this order:

    layout.py       memory: packed weights, scratch, counters, tile sizes, the record of a pass
    mathf.py        exp, erf and the activations
    layer_norm.py   LayerNorm
    embeddings.py   embeddings
    linear.py       dense layers
    activations.py  the activations that no dense layer fuses
    attention.py    self-attention
    pooling.py      pooling and normalisation
    forward.py      the order of the operations, and how threads share them
    entry.py        the functions that are called from outside

No operation calls another, except that embeddings end in a LayerNorm. Every kernel is serial, releases the GIL, writes
into an array that it is given, allocates nothing and validates nothing. It takes ranges of rows, panels, texts or
heads, so that its caller can split the work. How it is split never changes a bit of the result.
"""
