"""What the kernels find in memory: packed weights, scratch, counters, and the record that describes a pass.

Known to those who compile the kernels and to those who call them; it does without Numba, which callers never import.
"""

import ctypes
from typing import Any

PANEL = 48  # outputs of a packed weight that lie side by side: three vectors of 16
ATTENTION_PANEL = 32  # tokens of packed keys, elements of packed values
MOST_TILE_ROWS = 9  # of any target's register tile

LAYER_STAGES = 7
COUNTER = 16  # int64 counters from one stage's to the next's: two cache lines, so that threads do not share one


class Pass(ctypes.Structure):
    """Everything that a pass needs to know: numbers, and addresses of C-contiguous arrays; letters of reference.py."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in (
            "n_texts", "n_tokens", "n_layers", "n_heads",  # B, N, L, H
            "hidden_size", "intermediate_size", "vocab_size", "positions", "token_types",  # D, F, V, P
            "pooling_mode", "normalizes", "tasks", "member", "members", "scratch_size", "stage_start", "stage_stop",
            # int64: the batch (`offsets` has B + 1), and COUNTER counters for each stage, zero at first
            "token_ids", "position_ids", "offsets", "counters",
            # float32: the weights
            "word", "position", "token_type", "norm_weight", "norm_bias",
            "query_key_value_packed", "query_key_value_bias", "attention_output_packed", "attention_output_bias",
            "attention_norm_weight", "attention_norm_bias", "intermediate_packed", "intermediate_bias",
            "output_packed", "output_bias", "output_norm_weight", "output_norm_bias",
            # float32: what is written; at least N rows each, `scratch` a row for each member, `out` B rows
            "x", "query_key_value", "context", "attended", "intermediate", "scratch", "out",
        )),
        ("eps", ctypes.c_float),
        ("scale", ctypes.c_float),  # 1 / sqrt(E)
    ]  # fmt: skip

    def copy(self) -> "Pass":
        return Pass.from_buffer_copy(self)


def packed_shape(n_outputs: int, n_inputs: int) -> tuple[int, int, int]:
    """Shape of the packed form of an (n_outputs, n_inputs) weight."""
    return -(-n_outputs // PANEL), n_inputs, PANEL


def pack(weight: Any, weight_packed: Any, first_output: int = 0) -> None:
    """Copy weight (outputs, inputs) into the columns from first_output on of weight_packed, which began as zeros."""
    # (N, K) -> (panels, K, 48)
    n = 0
    while n < len(weight):
        panel, column = divmod(first_output + n, PANEL)
        count = min(PANEL - column, len(weight) - n)
        weight_packed[panel, :, column : column + count] = weight[n : n + count].T
        n += count


def unpack(weight_packed: Any, first_output: int, n_outputs: int) -> Any:
    """The (n_outputs, n_inputs) weight that `pack` put there: the same values, in memory of its own."""
    # (panels, K, 48) -> (N, K)
    weight = weight_packed.transpose(0, 2, 1).reshape(-1, weight_packed.shape[1])
    return weight[first_output : first_output + n_outputs].copy()


def scratch_size(longest: int, head_size: int) -> int:
    """Floats of scratch for texts of at most `longest` tokens: a head's keys and values, some rows' scores and sums."""
    padded_length = -(-longest // ATTENTION_PANEL) * ATTENTION_PANEL
    padded_size = -(-head_size // ATTENTION_PANEL) * ATTENTION_PANEL
    return (padded_length + longest) * padded_size + MOST_TILE_ROWS * (padded_length + padded_size)


def n_stages(n_layers: int) -> int:
    """The embeddings, the layers' stages, the pooling."""
    return 1 + n_layers * LAYER_STAGES + 1
