"""GELU and its gradient.

Twins: `reference.gelu`, `backward.gelu_backward`. With Phi(x) = (1 + erf(x / sqrt(2))) / 2, the normal distribution:

    gelu(x) = x Phi(x)        d_x = d_y * (Phi(x) + x exp(-x^2 / 2) / sqrt(2 pi))
"""

import math

import numpy as np

from minilm_np.engine.float32.kernels import mathf
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import fma, kernel, load, splat, store

_HALF, _MINUS_HALF = np.float32(0.5), np.float32(-0.5)
_SQRT_HALF = np.float32(math.sqrt(0.5))
_DENSITY = np.float32(1.0 / math.sqrt(2.0 * math.pi))


@kernel
def gelu(x, y, start, stop):
    # elements start..stop of (N F,) arrays; start, stop and the length of the arrays are multiples of 16
    for i in range(start, stop, simd.LANES):
        store(simd.address(y) + i, mathf.gelu(load(simd.address(x) + i)))


@kernel
def gelu_backward(d_y, x, d_x, y, start, stop):
    # the same; d_x may be d_y. y: gelu(x) again, for the gradient of the next layer's weight
    for i in range(start, stop, simd.LANES):
        value = load(simd.address(x) + i)
        normal = fma(splat(_HALF), mathf.erf(value * splat(_SQRT_HALF)), splat(_HALF))
        density = mathf.exp(value * value * splat(_MINUS_HALF)) * splat(_DENSITY)
        store(simd.address(y) + i, mathf.gelu(value))
        store(simd.address(d_x) + i, load(simd.address(d_y) + i) * fma(value, density, normal))
