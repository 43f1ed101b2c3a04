"""How quantised rows and packed weights lie in memory, for the target at hand; without Numba.

`bits` is 16 or 8 throughout. 16: rows of x and of the weight are int16. 8: rows of x are uint8, of the weight int8.

    target          x                                        weight
    amx, amx-twin   blocks of 16 rows x 64 k                 panels of 16 (int16) or 32 (int8) outputs, in blocks of
                                                             64 k x 16 outputs
    ...vnni         rows                                     panels of 48 outputs, pairs (int16) or quads (int8) of k
    neon            rows; 8-bit integers take 16 bits        panels of 48 outputs, each k by itself
    others          rows; 8-bit integers take 16 bits        panels of 48 outputs, pairs of k

On AMX an int16 is split as high * 256 + low, where high is an int8 and low a uint8; a block holds the high bytes, and
the next one the low bytes. In a block of the weight, byte [k // 4, 4 * n + k % 4] is element [n, k].
K is padded with zeros to a multiple of 64, in x and in the weight; the outputs missing from the last panel are zeros.
"""

import math
from typing import Any

import numpy as np

from minilm_np.engine.runtime.integer_target import integer_target

TARGET = integer_target()
TILES = TARGET in ("amx", "amx-twin")
QUADS = TARGET in ("avx512vnni", "avxvnni")  # 8-bit integers are multiplied as such
GROUP = {16: 1 if TARGET == "neon" else 2, 8: 4 if QUADS else 1 if TARGET == "neon" else 2}  # k side by side

PANEL = {16: 16, 8: 32} if TILES else {16: 48, 8: 48}  # outputs of a packed weight that lie together
K_STEP = 64  # K is padded to a multiple of it
ROW_BLOCK = 16  # rows of x are padded to a multiple of it

TILE_SIDE, TILE_BYTES = 16, 1024  # a tile's rows, and its bytes: rows of 64


def padded(n_inputs: int) -> int:
    """K, padded."""
    return -(-n_inputs // K_STEP) * K_STEP


def padded_rows(n_rows: int) -> int:
    """Rows of x, padded."""
    return -(-n_rows // ROW_BLOCK) * ROW_BLOCK


def row_bytes(bits: int, n_inputs: int) -> int:
    """Bytes of a row of quantised x."""
    wide = bits == 16 or not (TILES or QUADS)
    return padded(n_inputs) * (2 if wide else 1)


def rows_shape(bits: int, n_rows: int, n_inputs: int) -> tuple[int, int]:
    """Shape of quantised x in bytes."""
    return padded_rows(n_rows), row_bytes(bits, n_inputs)


def packed_shape(bits: int, n_outputs: int, n_inputs: int) -> tuple[int, int]:
    """Shape of the packed form of an (n_outputs, n_inputs) weight in bytes: panels, bytes of a panel."""
    return -(-n_outputs // PANEL[bits]), PANEL[bits] * padded(n_inputs) * bits // 8


def aligned_bytes(shape: tuple[int, ...]) -> Any:
    """A uint8 array of zeros that begins at a multiple of 64 bytes, as x and packed weights should.

    A tile whose rows lie in two cache lines each takes twice as long to load.
    """
    memory = np.zeros(math.prod(shape) + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + math.prod(shape)].reshape(shape)


def pack(bits: int, weight: Any, weight_packed: Any, first_output: int = 0) -> None:
    """Copy weight (outputs, inputs) into the columns from first_output on of weight_packed, which began as zeros."""
    # (N, K) -> (panels, bytes)
    elements, grouped = _elements(bits, weight_packed)
    K = weight.shape[1]
    n = 0
    while n < len(weight):
        panel, column = divmod(first_output + n, PANEL[bits])
        count = min(PANEL[bits] - column, len(weight) - n)
        part = np.zeros((count, padded(K)), weight.dtype)
        part[:, :K] = weight[n : n + count]
        if not TILES:  # (panels, K / group, 48, group)
            groups = part.reshape(count, -1, GROUP[bits]).transpose(1, 0, 2)
            grouped[panel, :, column : column + count] = groups
        else:
            for tile, first in enumerate(range(0, PANEL[bits], TILE_SIDE)):
                low, high = max(column, first), min(column + count, first + TILE_SIDE)
                if low < high:
                    blocks = part[low - column : high - column].reshape(high - low, -1, 16, 4).transpose(1, 2, 0, 3)
                    for plane, values in enumerate(_planes(bits, blocks)):
                        elements[panel, :, tile, plane, :, low - first : high - first] = values
        n += count


def _planes(bits: int, values: Any) -> tuple[Any, ...]:
    """The bytes of int16 as two arrays, high and low; of 8-bit integers as one."""
    if bits == 8:
        return (values.astype(np.uint8),)
    return (values >> 8).astype(np.uint8), (values & 255).astype(np.uint8)


def _elements(bits: int, weight_packed: Any) -> tuple[Any, Any]:
    """Views of a packed weight: by tiles, and by groups of k; the one that the target does not use is None."""
    if TILES:  # (panels, K / 64, tiles of 16 outputs, planes, 16, 16, 4)
        tiles = PANEL[bits] // TILE_SIDE
        return weight_packed.reshape(len(weight_packed), -1, tiles, bits // 8, 16, TILE_SIDE, 4), None
    integers = weight_packed.view(np.int16 if bits == 16 else np.int8)
    return None, integers.reshape(len(weight_packed), -1, PANEL[bits], GROUP[bits])


def unpack(bits: int, weight_packed: Any, first_output: int, n_outputs: int, n_inputs: int) -> Any:
    """The (n_outputs, n_inputs) weight that `pack` put there: the same values, in memory of its own."""
    elements, grouped = _elements(bits, weight_packed)
    if not TILES:
        weight = grouped.transpose(0, 2, 1, 3).reshape(len(weight_packed) * PANEL[bits], -1)
    else:
        planes = elements.transpose(3, 0, 2, 5, 1, 4, 6).reshape(bits // 8, len(weight_packed) * PANEL[bits], -1)
        weight = _join(planes, np.int8)
    return weight[first_output : first_output + n_outputs, :n_inputs].copy()


def _join(planes: Any, byte_type: Any) -> Any:
    """The integers whose bytes are in planes, the high ones first."""
    if len(planes) == 1:
        return planes[0].view(byte_type)
    return (planes[0].astype(np.int16) << 8) | planes[1]


def pack_rows(bits: int, x: Any) -> Any:
    """Rows (M, K) of int16 or uint8 as the kernels read them; padding is zeros."""
    M, K = x.shape
    whole = np.zeros((padded_rows(M), padded(K)), np.int16 if bits == 16 else np.uint8)
    whole[:M, :K] = x
    if TILES:  # (M / 16, K / 64, planes, 16, 64)
        blocks = whole.reshape(-1, ROW_BLOCK, padded(K) // K_STEP, K_STEP).transpose(0, 2, 1, 3)
        whole = np.stack(_planes(bits, np.ascontiguousarray(blocks)), 2)
    elif bits == 8 and not QUADS:
        whole = whole.astype(np.int16)
    rows = aligned_bytes(rows_shape(bits, M, K))
    rows[:] = np.ascontiguousarray(whole).view(np.uint8).reshape(rows.shape)
    return rows


def unpack_rows(bits: int, rows: Any, n_rows: int, n_inputs: int) -> Any:
    """The (n_rows, n_inputs) integers in rows that `pack_rows` or a kernel made."""
    if TILES:
        blocks = rows.reshape(-1, padded(n_inputs) // K_STEP, bits // 8, ROW_BLOCK, K_STEP)
        x = _join(blocks.transpose(2, 0, 3, 1, 4).reshape(bits // 8, len(rows), -1), np.uint8)
    elif bits == 8 and QUADS:
        x = rows
    else:
        x = rows.view(np.int16)
    return x[:n_rows, :n_inputs].astype(np.int16 if bits == 16 else np.uint8)
