"""Print the largest errors of the project's exp, erf and GELU over all float32 of their range, against float64.

    python -m benchmarks.polynomial_errors

Every float32 is tested: exp from -104 (where it has long been 0) to 0, erf and GELU from -32 to 32, far beyond the
limit at which erf is clamped. The float64 values are those of SciPy's `erf` and `erfc` and NumPy's `exp`. An ULP is the
distance between the two float32 around the true value.
"""

import numpy as np
from scipy.special import erf, erfc

from minilm_np.engine.float32.kernels import mathf
from minilm_np.engine.runtime import simd
from minilm_np.engine.runtime.simd import kernel, load, store

CHUNK = 1 << 22


def _over_array(function):
    @kernel
    def run(x, out):
        for i in range(0, len(x), simd.LANES):
            store(simd.address(out) + i, function(load(simd.address(x) + i)))

    return run


def floats_between_zero_and(limit):
    """All float32 from 0 to the limit (positive or negative), in chunks of whole vectors."""
    sign = np.uint32(0x80000000 if limit < 0 else 0)
    last = int(np.abs(np.float32(limit)).view(np.uint32))
    for start in range(0, last + 1, CHUNK):
        yield (np.arange(start, min(start + CHUNK, last + 16 & ~15), dtype=np.uint32) | sign).view(np.float32)


def largest_errors(function, truth, limits, above=0.0):
    """The largest absolute error, and the largest error in ULP where |truth| >= above, each with its x."""
    run, absolute, relative = _over_array(function), (0.0, 0.0), (0.0, 0.0)
    for limit in limits:
        for x in floats_between_zero_and(limit):
            out = np.empty_like(x)
            run(x, out)
            true = truth(x.astype(np.float64))
            error = np.abs(out - true)
            absolute = max(absolute, (error.max(), x[error.argmax()]))
            ulps = np.where(np.abs(true) >= above, error / np.spacing(np.abs(true).astype(np.float32)), 0.0)
            relative = max(relative, (ulps.max(), x[ulps.argmax()]))
    return absolute, relative


def main():
    smallest_normal = float(np.finfo(np.float32).tiny)
    gelu = mathf.gelu, lambda x: 0.5 * x * erfc(-x * np.sqrt(0.5))
    cases = [
        ("exp, x <= 0, normal results", mathf.exp, np.exp, [-104.0], smallest_normal),
        ("erf", mathf.erf, erf, [-32.0, 32.0], smallest_normal),
        ("GELU, x > 0", *gelu, [32.0], smallest_normal),
        ("GELU, x < 0", *gelu, [-32.0], 0.1),  # where 1 + erf does not cancel yet
    ]
    for name, function, truth, limits, above in cases:
        (absolute, at), (ulps, ulps_at) = largest_errors(function, truth, limits, above)
        print(f"{name:30s} absolute {absolute:.3e} at {at:<12.7g}", end=" ")
        print(f"{ulps:6.3f} ULP at {ulps_at:.7g} (of results from {above:.1e})", flush=True)


if __name__ == "__main__":
    main()
