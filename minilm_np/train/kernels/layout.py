"""What calls the gradients' kernels, and the memory they work in; known without Numba."""

import ctypes
from typing import Any

from minilm_np.engine.float32.kernels.layout import ATTENTION_PANEL, MOST_TILE_ROWS, PANEL

SPAN = 512  # tokens whose part of d_y and x a task of `weight_gradient` copies at a time
LANES = 16


def _integers(count: int) -> tuple[Any, ...]:
    return (ctypes.c_int64,) * count


# kernels/entry.py: name -> the types of its arguments: addresses and numbers, then the float32 ones
ENTRIES: dict[str, tuple[Any, ...]] = {
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
    """Floats of a task of `attention` or `attention_backward`, for texts of at most `longest` tokens."""
    width, size = (-(-count // ATTENTION_PANEL) * ATTENTION_PANEL for count in (longest, head_size))
    return width * size + 3 * width * width + MOST_TILE_ROWS * size + width


def gradient_scratch_size(outputs: int) -> int:
    """Floats of a task of `weight_gradient` for so many outputs."""
    return SPAN * (-(-outputs // LANES) * LANES + PANEL)
