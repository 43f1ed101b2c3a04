"""A model's weights as the kernels want them: products in packed panels, the three of query, key and value as one.

Taken in one by one, as they are read, so that there is never a second copy of all of them; given back as they came.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minilm_np.engine.float32.kernels.layout import pack, packed_shape, unpack
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.config import ModelConfig

Array = NDArray[np.float32]

# Fields of `layout.Pass`, and what the checkpoint has for them: tables as they are,
_TABLES = {
    "word": "embeddings.word_embeddings.weight",
    "position": "embeddings.position_embeddings.weight",
    "token_type": "embeddings.token_type_embeddings.weight",
    "norm_weight": "embeddings.LayerNorm.weight",
    "norm_bias": "embeddings.LayerNorm.bias",
}
# and of each layer the dense layers, whose outputs stand side by side, and the LayerNorms.
_PRODUCTS = {
    "query_key_value": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention_output": ("attention.output.dense",),
    "intermediate": ("intermediate.dense",),
    "output": ("output.dense",),
}
_NORMS = {"attention_norm": "attention.output.LayerNorm", "output_norm": "output.LayerNorm"}


class _Place(NamedTuple):
    """Where a parameter goes: a field of `layout.Pass`, a layer of it (None: all of it), the first of its outputs."""

    field: str
    layer: int | None = None
    first: int = 0


class PackedWeights:
    """The arrays behind the weights' fields of `layout.Pass`, all layers of a kind in one.

    weights: (name, float32 array) of every parameter, in any order. The tables are kept, not copied.
    """

    def __init__(self, config: ModelConfig, weights: Iterable[tuple[str, Array]]) -> None:
        self._shapes, self._places = parameter_shapes(config), _places(config)
        L, D, F = config.num_hidden_layers, config.hidden_size, config.intermediate_size
        self.arrays: dict[str, Array] = {}
        for field, modules in _PRODUCTS.items():
            n_outputs = (F if field == "intermediate" else D) * len(modules)
            n_inputs = F if field == "output" else D
            self.arrays[f"{field}_packed"] = _aligned_zeros((L, *packed_shape(n_outputs, n_inputs)))
            self.arrays[f"{field}_bias"] = np.empty((L, n_outputs), np.float32)
        for field in _NORMS:
            self.arrays[f"{field}_weight"], self.arrays[f"{field}_bias"] = np.empty((2, L, D), np.float32)
        for name, array in weights:
            field, layer, first = self._places[name]
            if layer is None:
                self.arrays[field] = np.ascontiguousarray(array, np.float32)  # as it is, or it could not be addressed
            elif field.endswith("_packed"):
                pack(array, self.arrays[field][layer], first)
            else:
                self.arrays[field][layer, first : first + len(array)] = array

    def unpacked(self) -> dict[str, Array]:
        """The weights as they came, bit for bit, by the names and in the order of `parameter_shapes`; read-only."""
        weights = {}
        for name, shape in self._shapes.items():
            field, layer, first = self._places[name]
            if layer is None:
                array = self.arrays[field]
            elif field.endswith("_packed"):
                array = unpack(self.arrays[field][layer], first, shape[0])
            else:
                array = self.arrays[field][layer, first : first + shape[0]]
            weights[name] = array.view()
            weights[name].flags.writeable = False
        return weights


def _places(config: ModelConfig) -> dict[str, _Place]:
    """The place of every parameter, by its name."""
    places = {name: _Place(field) for field, name in _TABLES.items()}
    for layer in range(config.num_hidden_layers):
        for field, modules in _PRODUCTS.items():
            n_outputs = config.intermediate_size if field == "intermediate" else config.hidden_size
            for number, module in enumerate(modules):
                name = f"encoder.layer.{layer}.{module}"
                places[f"{name}.weight"] = _Place(f"{field}_packed", layer, number * n_outputs)
                places[f"{name}.bias"] = _Place(f"{field}_bias", layer, number * n_outputs)
        for field, module in _NORMS.items():
            for kind in ("weight", "bias"):
                places[f"encoder.layer.{layer}.{module}.{kind}"] = _Place(f"{field}_{kind}", layer)
    return places


def _aligned_zeros(shape: tuple[int, ...]) -> Array:
    """Zeros that begin at a cache line; NumPy's own begin anywhere."""
    memory: Any = np.zeros(4 * math.prod(shape) + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + 4 * math.prod(shape)].view(np.float32).reshape(shape)
