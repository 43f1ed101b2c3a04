"""The record that describes a pass of the integer engine, and the stages of a layer. Needs no Numba.

Twin: `float32/kernels/layout.py`, whose counters, pooling modes and scratch are used here too.
"""

import ctypes

# The stages of a layer. ATTENTION is that of `float32/kernels/layout.py`.
(
    QUERY_KEY_VALUE, ATTENTION, QUANTISE_CONTEXT, ATTENTION_OUTPUT, ATTENTION_NORM,
    INTERMEDIATE, QUANTISE_INTERMEDIATE, OUTPUT, OUTPUT_NORM,
) = range(9)  # fmt: skip
LAYER_STAGES = 9

PRODUCT_FIELDS = ("packed", "scale", "sum", "bias")  # of each product: bytes, float32, int32, float32


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
            # the weights, PRODUCT_FIELDS of each product; float32 where not said otherwise
            "word", "word_scale",  # (V, D padded to 16) int16; (V,)
            "position", "token_type", "norm_weight", "norm_bias", "relative_bias",
            "query_key_value_packed", "query_key_value_scale", "query_key_value_sum", "query_key_value_bias",
            "attention_output_packed", "attention_output_scale", "attention_output_sum", "attention_output_bias",
            "intermediate_packed", "intermediate_scale", "intermediate_sum", "intermediate_bias",
            "output_packed", "output_scale", "output_sum", "output_bias",
            "attention_norm_weight", "attention_norm_bias", "output_norm_weight", "output_norm_bias",
            "channels",  # (2 L, D): by what the input of the layer's first and third product is multiplied
            # float32: results; at least N rows each, except `scratch`, one row per member, and `out`, B rows
            "x", "query_key_value", "context", "attended", "intermediate", "scratch", "out",
            # the quantised input of the next product: bytes, of D or of F integers; float32; int32
            "rows", "wide_rows", "row_scale", "row_zero",
        )),
        ("eps", ctypes.c_float),
        ("scale", ctypes.c_float),  # 1 / sqrt(E)
    ]  # fmt: skip


def padded_width(n_elements: int) -> int:
    """Elements of a row of int16 in memory, as `entry.quantise_weight` writes it and as the word table is stored."""
    return -(-n_elements // 16) * 16


def n_stages(n_layers: int) -> int:
    """Number of stages of a pass: the embeddings, the stages of the layers, the pooling."""
    return 1 + n_layers * LAYER_STAGES + 1
