"""Compute the coefficients in `minilm_np/engine/float32/kernels/mathf.py` and print them as exact float32 constants.

    python -m benchmarks.fit_polynomials

Two functions are fitted, each as a polynomial of few float32 coefficients, so that the largest relative error is
smallest:

    erf(z) / z               of u = z * z - centre, for |z| up to a limit (erf rounds to 1 beyond it)
    (exp(r) - 1 - r) / r**2  of r, for |r| up to ln(2) / 2

The method is Lawson's: least squares on Chebyshev nodes; each node's weight is multiplied by its error, until the
errors are level. Coefficients are rounded one by one from the constant term up, and the remaining ones are fitted
again to compensate. erf is expanded about the middle of the range instead of 0, which avoids cancellation: about 0,
the terms at |z| = 3.8 reach 7e4 times the result.
"""

import math

import numpy as np

NODES = 2000


def erf_over_z(t):
    """erf(sqrt(t)) / sqrt(t), by the series of positive terms 2 / sqrt(pi) * exp(-t) * sum (2 t)^n / (2 n + 1)!!."""
    total, term = np.ones_like(t), np.ones_like(t)
    for n in range(1, 200):
        term = term * (2.0 * t / (2 * n + 1))
        total = total + term
    return 2.0 / math.sqrt(math.pi) * np.exp(-t) * total


def exp_remainder(r):
    """(exp(r) - 1 - r) / r^2, by its series."""
    total, term = np.zeros_like(r), np.full_like(r, 0.5)
    for n in range(3, 30):
        total = total + term
        term = term * r / n
    return total


def fit(function, low, high, centre, degree):
    """Float32 coefficients, lowest first, of a polynomial in (x - centre) that fits function(x) on [low, high].

    Returns them and the largest relative error.
    """
    x = (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
    wanted = function(x)
    scale = max(centre - low, high - centre)
    powers = np.vander((x - centre) / scale, degree + 1, increasing=True) / wanted[:, None]  # relative to the function
    rest, coefficients = np.ones(NODES), []
    for k in range(degree + 1):
        importance, best = np.ones(NODES), (np.inf, None)
        for _ in range(40):
            weight = np.sqrt(importance)
            solution = np.linalg.lstsq(powers[:, k:] * weight[:, None], rest * weight, rcond=None)[0]
            error = np.abs(powers[:, k:] @ solution - rest)
            if error.max() < best[0]:
                best = error.max(), solution
            importance = importance * error + 1e-300
            importance /= importance.mean()
        coefficient = np.float32(best[1][0] / scale**k)
        rest = rest - powers[:, k] * (float(coefficient) * scale**k)
        coefficients.append(coefficient)
    return coefficients, np.abs(rest).max()


def show(name, coefficients, error):
    print(f"{name}: largest relative error of the fit {error:.2e}")
    for k, coefficient in enumerate(coefficients):
        print(f"    _{name}_{k} = np.float32({float(coefficient)!r})")


if __name__ == "__main__":
    show("EXP", *fit(exp_remainder, -math.log(2) / 2, math.log(2) / 2, 0.0, 5))
    show("ERF", *fit(erf_over_z, 0.0, 4.0**2, 7.5, 15))
