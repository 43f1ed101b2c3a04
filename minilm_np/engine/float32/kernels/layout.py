"""Memory of the kernels: packed weights, scratch, counters, tile sizes, and the record that describes a pass.

Both the kernels and their callers import this file. It needs no Numba, which the callers never import.
"""

import ctypes

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

PANEL = 48  # adjacent outputs in a packed weight: three vectors of 16
ATTENTION_PANEL = 32  # adjacent tokens in packed keys, adjacent elements in packed values
BLOCK = 128  # steps of k in one chain of fma; the contract fixes it

# Rows and columns of the register tile, by `simd.TARGET`. The accumulators, the columns of one k and one broadcast x
# must fit the vector registers.
TILES = {"avx512": (9, 48), "avx2": (6, 16), "neon": (6, 16), "none": (2, 16)}
ATTENTION_TILES = {target: (rows, min(columns, ATTENTION_PANEL)) for target, (rows, columns) in TILES.items()}
MOST_TILE_ROWS = max(rows for rows, _ in TILES.values())

# Numbers of the activations, by `hidden_act`
GELU, GELU_TANH, RELU, SILU = range(4)
ACTIVATIONS = {"gelu": GELU, "gelu_new": GELU_TANH, "gelu_pytorch_tanh": GELU_TANH, "relu": RELU, "silu": SILU}

LAYER_STAGES = 7
ATTENTION = 1  # the stage of a layer, in every engine
COUNTER = 16  # distance, in int64, between the counters of two stages: two cache lines, so threads do not share one


class Pass(ctypes.Structure):
    """All arguments of a pass: numbers, and addresses of C-contiguous arrays. The letters are those of reference.py."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in (
            "n_texts", "n_tokens", "n_layers", "n_heads",  # B, N, L, H
            "hidden_size", "intermediate_size", "vocab_size", "positions", "token_types",  # D, F, V, P
            "activation", "bias_width",  # bias_width: 2 P - 1, or 0 without a bias of the attention scores
            "pooling_mode", "normalizes", "tasks", "row_tasks", "member", "members", "scratch_size",
            "stage_start", "stage_stop",
            # int64: the batch (`offsets` has B + 1), and COUNTER counters per stage, initially zero
            "token_ids", "position_ids", "token_type_ids", "offsets", "counters",
            # float32: the weights
            "word", "position", "token_type", "norm_weight", "norm_bias", "relative_bias",
            "query_key_value_packed", "query_key_value_bias", "attention_output_packed", "attention_output_bias",
            "attention_norm_weight", "attention_norm_bias", "intermediate_packed", "intermediate_bias",
            "output_packed", "output_bias", "output_norm_weight", "output_norm_bias",
            # float32: results; at least N rows each, except `scratch`, one row per member, and `out`, B rows
            "x", "query_key_value", "context", "attended", "intermediate", "scratch", "out",
        )),
        ("eps", ctypes.c_float),
        ("scale", ctypes.c_float),  # 1 / sqrt(E)
    ]  # fmt: skip


def packed_shape(n_outputs: int, n_inputs: int) -> tuple[int, int, int]:
    """Shape of the packed form of an (n_outputs, n_inputs) weight."""
    return -(-n_outputs // PANEL), n_inputs, PANEL


def pack(weight: Array, weight_packed: Array, first_output: int = 0) -> None:
    """Copy weight (outputs, inputs) into weight_packed, as its outputs from first_output on.

    weight_packed must have been created with zeros, which remain in the missing outputs of the last panel.
    """
    # (N, K) -> (panels, K, 48)
    n = 0
    while n < len(weight):
        panel, column = divmod(first_output + n, PANEL)
        count = min(PANEL - column, len(weight) - n)
        weight_packed[panel, :, column : column + count] = weight[n : n + count].T
        n += count


def unpack(weight_packed: Array, first_output: int, n_outputs: int) -> Array:
    """A copy of the (n_outputs, n_inputs) weight that `pack` stored from first_output on, bit for bit."""
    # (panels, K, 48) -> (N, K)
    weight = weight_packed.transpose(0, 2, 1).reshape(-1, weight_packed.shape[1])
    return weight[first_output : first_output + n_outputs].copy()


def scratch_size(longest: int, head_size: int) -> int:
    """Floats of scratch that attention needs for texts of at most `longest` tokens.

    They hold one head's packed keys and values, and the scores and sums of the rows of one tile.
    """
    padded_length = -(-longest // ATTENTION_PANEL) * ATTENTION_PANEL
    padded_size = -(-head_size // ATTENTION_PANEL) * ATTENTION_PANEL
    return (padded_length + longest) * padded_size + MOST_TILE_ROWS * (padded_length + padded_size)


def n_stages(n_layers: int) -> int:
    """Number of stages of a pass: the embeddings, the stages of the layers, the pooling."""
    return 1 + n_layers * LAYER_STAGES + 1
