"""The activations of feed-forward that `linear.py` does not fuse: all but GELU with erf.

Twins: `reference.gelu_tanh(x)`, `reference.relu(x)`, `reference.silu(x)`.

Reads and writes  rows row_start..row_stop and columns column_start..column_stop of x (M, N), in place.
Order             see `mathf.py`, element by element.
Fused             nothing.
"""

import numpy as np

from minilm_np.engine.float32.kernels import mathf
from minilm_np.engine.float32.kernels.layout import GELU_TANH, RELU
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import kernel, load_part, store_part

_ZERO = np.float32(0.0)


def _over(function):
    """The kernel that applies a function of sixteen floats to a part of an array."""

    @kernel
    def over(x, row_start, row_stop, column_start, column_stop):
        # (M, N) -> (M, N)
        N = x.shape[1]
        for m in range(row_start, row_stop):
            row = simd.address(x) + m * N
            for n in range(column_start, column_stop, simd.LANES):
                count = column_stop - n
                store_part(row + n, count, function(load_part(row + n, count, _ZERO)))

    return over


gelu_tanh, relu, silu = _over(mathf.gelu_tanh), _over(mathf.relu), _over(mathf.silu)


@kernel
def activate(x, activation, row_start, row_stop, column_start, column_stop):
    """Apply the activation with this number of `layout.ACTIVATIONS`."""
    # (M, N) -> (M, N)
    if activation == GELU_TANH:
        gelu_tanh(x, row_start, row_stop, column_start, column_stop)
    elif activation == RELU:
        relu(x, row_start, row_stop, column_start, column_stop)
    else:
        silu(x, row_start, row_stop, column_start, column_stop)
