"""exp, erf and the activations of sixteen floats, in explicit fma, mul, add and div: the same bits on every CPU.

Twins: the exponential in `reference.softmax`, `reference.erf(x)`, `reference.gelu(x)`, `reference.gelu_tanh(x)`,
`reference.relu(x)` and `reference.silu(x)`.

No function of libm or NumPy is used: their last bits differ between machines. Arguments are clamped before they are
converted to integers. NaN gives NaN. `benchmarks.fit_polynomials` computes the coefficients, and
`benchmarks.polynomial_errors` prints the largest errors over all float32: exp 0.98 ULP, erf 1.9e-7, GELU 6.6e-7 (for
|x| up to 32; there an ULP of the result is up to 4.8e-7 near 5 and 1.9e-6 near 32).
"""

import numpy as np

from minilm_np.engine.runtime.simd import fma, inlined, power_of_two, select_greater, splat

_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)

# exp(r) = 1 + (r + r^2 (E0 + E1 r + ...)) for |r| <= ln(2) / 2.
_EXP_0 = np.float32(0.5)
_EXP_1 = np.float32(0.1666666716337204)
_EXP_2 = np.float32(0.041666530072689056)
_EXP_3 = np.float32(0.008333245292305946)
_EXP_4 = np.float32(0.0013928738189861178)
_EXP_5 = np.float32(0.00019908773538190871)

# The smallest x whose exp is above the smallest normal float32.
_EXP_LOWEST = np.float32(-87.33654)
_LOG2_E = np.float32(1.4426950408889634)
# ln 2 in two parts. The first has 9 bits, so its products with whole numbers up to 2^15 are exact.
_LN_2_HIGH = np.float32(0.693359375)
_LN_2_LOW = np.float32(-0.00021219444005469057)
# Adding and subtracting 1.5 * 2^23 rounds to a whole number, ties to even.
_ROUND = np.float32(1.5 * 2**23)

# erf(z) / z = E0 + E1 u + ... with u = z^2 - 7.5, for |z| <= 4. At 4 it is exactly 1/4, so that erf(4) is exactly 1.
_ERF_0 = np.float32(0.3651091158390045)
_ERF_1 = np.float32(-0.024299023672938347)
_ERF_2 = np.float32(0.0024091051891446114)
_ERF_3 = np.float32(-0.0002607270434964448)
_ERF_4 = np.float32(2.868239243980497e-05)
_ERF_5 = np.float32(-3.0987957870820537e-06)
_ERF_6 = np.float32(3.212415151665482e-07)
_ERF_7 = np.float32(-3.117769153959671e-08)
_ERF_8 = np.float32(2.846024083069665e-09)
_ERF_9 = np.float32(-2.604366444725059e-10)
_ERF_10 = np.float32(2.2303396976508516e-11)
_ERF_11 = np.float32(-1.3366595157104921e-12)
_ERF_12 = np.float32(6.413631155029534e-14)
_ERF_13 = np.float32(-8.571871782259849e-15)
_ERF_14 = np.float32(9.29927720758224e-16)
_ERF_15 = np.float32(-3.46844639428467e-17)

_ERF_LIMIT = np.float32(4.0)
_ERF_CENTRE = np.float32(7.5)
_SQRT_HALF = np.float32(0.7071067811865476)

# tanh GELU is x sigmoid(x (T0 + T1 x^2)), with T0 = 2 sqrt(2 / pi) and T1 = 0.044715 T0.
_TANH_0 = np.float32(1.5957691216057308)
_TANH_1 = np.float32(0.07135481627260025)


@inlined
def exp(x):
    """exp(x) for x <= 0, as 2^n exp(r) with n = round(x / ln 2). It is 0 where the result would be subnormal."""
    lowest = splat(_EXP_LOWEST)
    clamped = select_greater(x, lowest, x, lowest)
    n = fma(clamped, splat(_LOG2_E), splat(_ROUND)) - splat(_ROUND)
    r = fma(n, splat(-_LN_2_LOW), fma(n, splat(-_LN_2_HIGH), x))
    p = splat(_EXP_5)
    p = fma(p, r, splat(_EXP_4))
    p = fma(p, r, splat(_EXP_3))
    p = fma(p, r, splat(_EXP_2))
    p = fma(p, r, splat(_EXP_1))
    p = fma(p, r, splat(_EXP_0))
    result = (splat(_ONE) + fma(r * r, p, r)) * power_of_two(n)
    return select_greater(lowest, x, splat(_ZERO), result)


@inlined
def _erf_over_z(z):
    u = fma(z, z, splat(-_ERF_CENTRE))
    p = splat(_ERF_15)
    p = fma(p, u, splat(_ERF_14))
    p = fma(p, u, splat(_ERF_13))
    p = fma(p, u, splat(_ERF_12))
    p = fma(p, u, splat(_ERF_11))
    p = fma(p, u, splat(_ERF_10))
    p = fma(p, u, splat(_ERF_9))
    p = fma(p, u, splat(_ERF_8))
    p = fma(p, u, splat(_ERF_7))
    p = fma(p, u, splat(_ERF_6))
    p = fma(p, u, splat(_ERF_5))
    p = fma(p, u, splat(_ERF_4))
    p = fma(p, u, splat(_ERF_3))
    p = fma(p, u, splat(_ERF_2))
    p = fma(p, u, splat(_ERF_1))
    return fma(p, u, splat(_ERF_0))


@inlined
def _clamp_for_erf(z):
    limit, negative_limit = splat(_ERF_LIMIT), splat(-_ERF_LIMIT)
    z = select_greater(z, limit, limit, z)
    return select_greater(negative_limit, z, negative_limit, z)


@inlined
def erf(z):
    """erf(z), as an odd polynomial. It is exactly 1 or -1 from |z| = 4 on."""
    z = _clamp_for_erf(z)
    return z * _erf_over_z(z)


@inlined
def gelu(x):
    """(0.5 x) (1 + erf(x / sqrt(2))). 1 + erf(z) is one fma: z (erf(z) / z) + 1."""
    z = _clamp_for_erf(x * splat(_SQRT_HALF))
    return (splat(_HALF) * x) * fma(z, _erf_over_z(z), splat(_ONE))


@inlined
def _sigmoid(x):
    """1 / (1 + exp(-x)), from exp(-|x|), which does not overflow: (x > 0 ? 1 : e) / (1 + e)."""
    zero, one = splat(_ZERO), splat(_ONE)
    e = exp(select_greater(x, zero, zero - x, x))
    return select_greater(x, zero, one, e) / (one + e)


@inlined
def gelu_tanh(x):
    """x sigmoid(2 u), which is 0.5 x (1 + tanh(u)); 2 u = x (T0 + T1 x^2)."""
    return x * _sigmoid(x * fma(x * x, splat(_TANH_1), splat(_TANH_0)))


@inlined
def relu(x):
    """0 > x ? 0 : x, so NaN stays NaN."""
    zero = splat(_ZERO)
    return select_greater(zero, x, zero, x)


@inlined
def silu(x):
    """x sigmoid(x)."""
    return x * _sigmoid(x)
