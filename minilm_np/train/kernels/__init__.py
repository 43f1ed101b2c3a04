"""The kernels of training: gradients and dropout. They share the tile and products of `engine/float32/kernels`.

Read in this order:

    layout.py       the arguments of the entries, and the sizes of scratch
    products.py     the products of a dense layer's gradient
    layer_norm.py   the gradient of LayerNorm
    activation.py   GELU and its gradient
    dropout.py      dropout from a counter
    attention.py    self-attention with dropout, and its gradient
    entry.py        the functions that `train/engine.py` calls

The twin of each is in `train/backward.py` or `train/dropout.py`. Every sum has a fixed order, so gradients have the
same bits for any number of threads.
"""
