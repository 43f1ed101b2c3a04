"""Fit the series behind `reference.erf`, print it, and measure it.

    python -m benchmarks.fit_erf

The function exp(x^2) erfc(x) falls smoothly from 1 to 0.093 over 0 <= x <= 6. In s = (2x - 3) / (x + 3), which maps
that range to -1 .. 1, each Chebyshev coefficient is about a tenth of the one before. mpmath computes them to 50 digits.
"""

import math

import mpmath
import numpy as np

from minilm_np import reference

NODES = 64  # Chebyshev nodes of the interpolation: far more precise than the printed digits


def main() -> None:
    mpmath.mp.dps = 50
    half = mpmath.mpf(1) / 2
    angles = [mpmath.pi * (node + half) / NODES for node in range(NODES)]
    values = [scaled_erfc(mpmath.cos(angle)) for angle in angles]
    series = []
    for degree in range(len(reference.ERFC_SERIES)):
        total = mpmath.fsum(v * mpmath.cos(degree * angle) for v, angle in zip(values, angles, strict=True))
        series.append(float(total * (1 if degree == 0 else 2) / NODES))
    print("\n".join(f"{coefficient!r}," for coefficient in series))
    print(f"the series in reference.py is this one: {tuple(series) == reference.ERFC_SERIES}")

    x = np.linspace(-7, 7, 400_001)
    for dtype in (np.float64, np.float32):
        points = x.astype(dtype)
        error = np.abs(reference.erf(points) - np.array([math.erf(point) for point in points.tolist()])).max()
        print(f"largest error of reference.erf in {np.dtype(dtype).name}: {error:.1e}")


def scaled_erfc(s: mpmath.mpf) -> mpmath.mpf:
    """exp(x^2) erfc(x) at the x that belongs to s."""
    x = 3 * (1 + s) / (2 - s)
    return mpmath.exp(x * x) * mpmath.erfc(x)


if __name__ == "__main__":
    main()
