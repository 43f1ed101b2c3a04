"""A model's weights in the layout of the kernels: each product packed in panels, all layers of a kind in one array.

Weights are packed one by one as they are read, so there is never a second copy of all of them.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minilm_np._forks import no_fork
from minilm_np.engine.float32.kernels.layout import pack, packed_shape, unpack
from minilm_np.engine.products import PRODUCTS, module_shape
from minilm_np.engine.protocol import Packed
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.config import ModelConfig

Array = NDArray[np.float32]

# field of `layout.Pass` -> parameter: the tables, which are not packed
TABLES = {
    "word": "embeddings.word_embeddings.weight",
    "position": "embeddings.position_embeddings.weight",
    "token_type": "embeddings.token_type_embeddings.weight",
    "norm_weight": "embeddings.LayerNorm.weight",
    "norm_bias": "embeddings.LayerNorm.bias",
}
# the table of biases by bucket, of MPNet only; the kernels read `relative_bias` instead
RELATIVE_TABLE, RELATIVE_NAME = "relative_table", "encoder.relative_attention_bias.weight"
# prefix of fields of `layout.Pass` -> module of a layer; the dense layers are in `PRODUCTS`
NORMS = {"attention_norm": "attention.output.LayerNorm", "output_norm": "output.LayerNorm"}


class Place(NamedTuple):
    """Where a parameter is stored: a field of `layout.Pass`, its layer (None: the whole field), its first output."""

    field: str
    layer: int | None = None
    first: int = 0


class PackedWeights:
    """The arrays for the weights' fields of `layout.Pass`.

    weights: (name, float32 array) of every parameter, in any order; or these arrays. C-contiguous tables are stored
    without a copy.
    """

    def __init__(self, config: ModelConfig, weights: Iterable[tuple[str, Array]] | Packed) -> None:
        self._shapes, self._places = parameter_shapes(config), places(config)
        self.arrays: dict[str, Array] = {}
        if isinstance(weights, Packed):
            self.arrays = weights.read()
            return
        L, D = config.num_hidden_layers, config.hidden_size
        for field, modules in PRODUCTS.items():
            n_outputs, n_inputs = module_shape(field, config)
            n_outputs *= len(modules)
            self.arrays[f"{field}_packed"] = _aligned_zeros((L, *packed_shape(n_outputs, n_inputs)))
            self.arrays[f"{field}_bias"] = np.empty((L, n_outputs), np.float32)
        for field in NORMS:
            self.arrays[f"{field}_weight"], self.arrays[f"{field}_bias"] = np.empty((2, L, D), np.float32)
        self.arrays |= missing_tables(config)
        for name, array in weights:
            field, layer, first = self._places[name]
            if layer is None:
                self.arrays[field] = np.ascontiguousarray(array, np.float32)  # kernels take its address
            elif field.endswith("_packed"):
                pack(array, self.arrays[field][layer], first)
            else:
                self.arrays[field][layer, first : first + len(array)] = array

    def unpacked(self) -> Iterator[tuple[str, Array]]:
        """Yield the original weights, bit for bit, with the names and in the order of `parameter_shapes`; read-only."""
        for name, shape in self._shapes.items():
            field, layer, first = self._places[name]
            if layer is None:
                array = self.arrays[field]
            elif field.endswith("_packed"):
                array = unpack(self.arrays[field][layer], first, shape[0])
            else:
                array = self.arrays[field][layer, first : first + shape[0]]
            view = array.view()
            view.flags.writeable = False
            yield name, view


def places(config: ModelConfig) -> dict[str, Place]:
    """The place of every parameter, by its name."""
    tables, names = TABLES | {RELATIVE_TABLE: RELATIVE_NAME}, parameter_shapes(config)
    places = {name: Place(field) for field, name in tables.items() if name in names}
    for layer in range(config.num_hidden_layers):
        for field, modules in PRODUCTS.items():
            n_outputs, _ = module_shape(field, config)
            for number, module in enumerate(modules):
                name = f"encoder.layer.{layer}.{module}"
                places[f"{name}.weight"] = Place(f"{field}_packed", layer, number * n_outputs)
                places[f"{name}.bias"] = Place(f"{field}_bias", layer, number * n_outputs)
        for field, module in NORMS.items():
            for kind in ("weight", "bias"):
                places[f"encoder.layer.{layer}.{module}.{kind}"] = Place(f"{field}_{kind}", layer)
    return places


def missing_tables(config: ModelConfig) -> dict[str, Array]:
    """Zeros in place of the table of token types, if the model has none."""
    return {} if config.type_vocab_size else {"token_type": np.zeros((1, config.hidden_size), np.float32)}


def relative_bias(arrays: Mapping[str, NDArray[Any]], config: ModelConfig) -> Array:
    """The bias of the attention scores by the distance from a query to a key, -(P - 1) to P - 1: (H, 2 P - 1).

    arrays: the packed weights. (H, 0) if the model has no such bias.
    """
    if RELATIVE_TABLE not in arrays:
        return np.empty((config.num_attention_heads, 0), np.float32)
    with no_fork:
        from minilm_np.reference_variants import relative_buckets

    P = config.max_position_embeddings
    return np.ascontiguousarray(arrays[RELATIVE_TABLE][relative_buckets(np.arange(1 - P, P))].T)


def _aligned_zeros(shape: tuple[int, ...]) -> Array:
    """Zeros that begin at a cache line. NumPy guarantees no such alignment."""
    memory: NDArray[Any] = np.zeros(4 * math.prod(shape) + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + 4 * math.prod(shape)].view(np.float32).reshape(shape)
