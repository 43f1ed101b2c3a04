"""The arguments of the kernels of training, and the sizes of their scratch. Needs no Numba."""

import ctypes

from minilm_np.engine.float32.kernels.layout import ATTENTION_PANEL, MOST_TILE_ROWS, PANEL

SPAN = 512  # tokens of d_y and x that a task of `weight_gradient` copies at a time
LANES = 16


def _integers(count: int) -> tuple[type[ctypes.c_int64], ...]:
    return (ctypes.c_int64,) * count


# entry.py: name -> the ctypes of its arguments: addresses and integers, then float32
ENTRIES: dict[str, tuple[type[ctypes.c_int64] | type[ctypes.c_float], ...]] = {
    "pack": _integers(7),
    "dense": _integers(9),
    "dense_residual": _integers(10),
    "weight_gradient": _integers(9),
    "column_sums": _integers(6),
    "column_dots": _integers(7),
    "norm": (*_integers(7), ctypes.c_float),
    "norm_backward": (*_integers(8), ctypes.c_float),
    "gelu": _integers(4),
    "gelu_backward": _integers(6),
    "dropout_add": (*_integers(14), ctypes.c_float),
    "attention": (*_integers(16), ctypes.c_float, ctypes.c_float),
    "attention_backward": (*_integers(17), ctypes.c_float, ctypes.c_float),
}


def attention_scratch_size(longest: int, head_size: int) -> int:
    """Floats of scratch for a task of `attention` or `attention_backward`, with texts of at most `longest` tokens."""
    width, size = (-(-count // ATTENTION_PANEL) * ATTENTION_PANEL for count in (longest, head_size))
    return width * size + 3 * width * width + MOST_TILE_ROWS * size + width


def gradient_scratch_size(outputs: int) -> int:
    """Floats of scratch for a task of `weight_gradient` with this number of outputs."""
    return SPAN * (-(-outputs // LANES) * LANES + PANEL)
