"""Arrays as text inside a page: the exact numbers, or numbers rounded for display. `js/arrays.js` reads them.

The bytes of an array are compressed with zlib and written in base64. The browser decompresses an array when a view
first needs it. The bytes of wider numbers are stored in planes (all first bytes, then all second bytes, ...), because
the bytes of the exponents are alike and compress well.
"""

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm_np.reference import Array

STEPS = 24  # of a rounded array on either side of zero: 49 levels


@dataclass(frozen=True)
class Embedded:
    """An array as it is written into a page.

    kind: "float32" or "float64", exact; "uint16", fractions in steps of 1/65535; "int8", multiples of `steps`.
    steps: the value of 1 in the stored numbers, for each index of the first of three dimensions; otherwise one number.
    clipped: how many values of a rounded array lie beyond its last step and are shown with its colour.
    """

    shape: tuple[int, ...]
    kind: str
    steps: tuple[float, ...]
    clipped: int
    data: str

    def facts(self) -> dict[str, Any]:
        """Everything except the data, for JSON."""
        return {"shape": list(self.shape), "kind": self.kind, "steps": list(self.steps), "clipped": self.clipped}


def exact(array: Array) -> Embedded:
    """Embed every bit of a float32 array; other dtypes are stored as float64."""
    kind = "float32" if array.dtype == np.float32 else "float64"
    return _embedded(array.astype("<f4" if kind == "float32" else "<f8"), kind)


def fractions(array: Array) -> Embedded:
    """Embed numbers from 0 to 1, rounded to the nearest multiple of 1/65535. NaN becomes 0."""
    whole = np.rint(np.nan_to_num(np.clip(array, 0.0, 1.0)) * 65535.0).astype("<u2")
    return _embedded(whole, "uint16", (1 / 65535,))


def rounded(array: Array) -> Embedded:
    """Embed an array for display: each number is rounded to one of 49 levels around zero.

    The last level is the 99.8th percentile of the absolute values, so that single huge values leave the rest visible;
    `clipped` counts the values beyond. Each matrix of an array of three dimensions has separate levels. NaN and
    infinite values are shown as zero.
    """
    finite = np.nan_to_num(array.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    matrices = finite if array.ndim == 3 else finite[None]
    steps = [_step(np.abs(matrix)) for matrix in matrices]
    levels = np.stack([np.rint(matrix / step) for matrix, step in zip(matrices, steps, strict=True)])
    clipped = int((np.abs(levels) > STEPS).sum())
    return _embedded(np.clip(levels, -STEPS, STEPS).astype(np.int8).reshape(array.shape), "int8", tuple(steps), clipped)


def _step(size: Array) -> float:
    """The difference between two levels, for these absolute values."""
    limit = float(np.quantile(size, 0.998)) or float(size.max())
    return limit / STEPS or 1.0


def _embedded(stored: Array, kind: str, steps: tuple[float, ...] = (1.0,), clipped: int = 0) -> Embedded:
    planes = np.ascontiguousarray(stored).view(np.uint8).reshape(-1, stored.dtype.itemsize).T
    # the numbers are noise: searching for repeated strings takes most of the time and makes the result larger
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    data = base64.b64encode(deflate.compress(planes.tobytes()) + deflate.flush()).decode("ascii")
    return Embedded(stored.shape, kind, steps, clipped, data)
