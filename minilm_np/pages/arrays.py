"""Arrays as text inside a page: the exact numbers, or numbers rounded for display. `js/arrays.js` reads them.

The bytes of an array are compressed with zlib and written in base64. The browser decompresses an array when a view
first needs it. The bytes of wider numbers are stored in planes (all first bytes, then all second bytes, ...), because
the bytes of the exponents are alike and compress well.
"""

import base64
import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm_np.reference import Array

STEPS = 31  # of a rounded array on either side of zero: 63 levels, 6 bits


@dataclass(frozen=True)
class Embedded:
    """An array as it is written into a page.

    kind: "float32" or "float64", exact; "uint16", fractions in steps of 1/65535; "int8", whole steps of `step`.
    step: the value of 1 in the stored numbers; 1 for exact numbers.
    clipped: how many values of a rounded array lie beyond its last step and are shown with its colour.
    """

    shape: tuple[int, ...]
    kind: str
    step: float
    clipped: int
    data: str

    def facts(self) -> dict[str, Any]:
        """Everything except the data, for JSON."""
        return {"shape": list(self.shape), "kind": self.kind, "step": self.step, "clipped": self.clipped}


def exact(array: Array) -> Embedded:
    """Embed every bit of a float32 array; other dtypes are stored as float64."""
    kind = "float32" if array.dtype == np.float32 else "float64"
    return _embedded(array.astype("<f4" if kind == "float32" else "<f8"), kind, 1.0)


def fractions(array: Array) -> Embedded:
    """Embed numbers from 0 to 1, rounded to the nearest multiple of 1/65535. NaN becomes 0."""
    whole = np.rint(np.nan_to_num(np.clip(array, 0.0, 1.0)) * 65535.0).astype("<u2")
    return _embedded(whole, "uint16", 1 / 65535)


def rounded(array: Array) -> Embedded:
    """Embed an array for display: each number is rounded to one of 63 levels around zero.

    The last level is the 99.8th percentile of the absolute values, so that single huge values leave the rest visible;
    `clipped` counts the values beyond. NaN and infinite values are shown as zero.
    """
    finite = np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)
    size = np.abs(finite)
    limit = float(np.quantile(size, 0.998)) if array.size else 0.0
    step = (limit or float(size.max(initial=0.0)) or 1.0) / STEPS
    levels = np.rint(finite / step)
    clipped = int((np.abs(levels) > STEPS).sum())
    return _embedded(np.clip(levels, -STEPS, STEPS).astype(np.int8), "int8", step, clipped)


def _embedded(stored: Array, kind: str, step: float, clipped: int = 0) -> Embedded:
    planes = np.ascontiguousarray(stored).view(np.uint8).reshape(-1, stored.dtype.itemsize).T
    data = base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode("ascii")
    return Embedded(stored.shape, kind, step if math.isfinite(step) else 1.0, clipped, data)
