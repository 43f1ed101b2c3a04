"""The gradients' kernels, in the manner of `minilm_np/kernels`, whose register tile, vectors and products they share.

Read `products.py`, `layer_norm.py`, `activation.py`, `dropout.py`, `attention.py`; the twin of each is in
`train/backward.py`, and `train/engine.py` puts them in order. Every sum has an order of its own, whoever computes it:
gradients are the same bits for any number of threads.
"""
