"""A model's weights as integers in the layout of the kernels, made from the published float32 weights as they are read.

The integers are those of `reference.py`. Each tensor is quantised and packed as soon as its channels are known, and its
float32 numbers are then dropped.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm_np.engine.float32.packing import NORMS, Place, missing_tables, places
from minilm_np.engine.integer import loading, reference
from minilm_np.engine.integer.kernels.layout import aligned_bytes, pack, packed_shape, unpack
from minilm_np.engine.integer.kernels.passes import padded_width
from minilm_np.engine.integer.reference import Floats, Moments
from minilm_np.engine.products import PRODUCTS, module_shape
from minilm_np.engine.protocol import Packed
from minilm_np.engine.runtime.processor import STANDARD_FLOAT_MODE
from minilm_np.model_files.config import ModelConfig

BITS = {"int16": 16, "int8": 8}  # of the integers, by compute type
BLOCK_ROWS = 256  # of the word table, which is quantised in blocks to save memory


class IntegerWeights:
    """The arrays for the weights' fields of `passes.Pass`.

    weights: (name, float32 array) of every parameter, in any order; in the order of the layers, few wait. Or
    these arrays.
    """

    def __init__(self, config: ModelConfig, weights: Iterable[tuple[str, Floats]] | Packed, compute_type: str) -> None:
        self.bits = BITS[compute_type]
        self._config, self._places = config, places(config)
        self.arrays: dict[str, NDArray[Any]] = {}
        if isinstance(weights, Packed):
            self.arrays = weights.read()
            return
        L, D = config.num_hidden_layers, config.hidden_size
        self.arrays["channels"] = np.ones((2 * L, D), np.float32)
        for product, modules in PRODUCTS.items():
            n_outputs, n_inputs = module_shape(product, config)
            n_outputs *= len(modules)
            self.arrays[f"{product}_packed"] = aligned_bytes((L, *packed_shape(self.bits, n_outputs, n_inputs)))
            self.arrays[f"{product}_scale"] = np.empty((L, n_outputs), np.float32)
            self.arrays[f"{product}_sum"] = np.empty((L, n_outputs), np.int32)
            self.arrays[f"{product}_bias"] = np.empty((L, n_outputs), np.float32)
        for field in NORMS:
            self.arrays[f"{field}_weight"], self.arrays[f"{field}_bias"] = np.empty((2, L, D), np.float32)
        self.arrays |= missing_tables(config)
        channels = _Channels(config) if self.bits == 8 else None
        waiting: list[tuple[Place, Floats]] = []
        for name, array in weights:
            place = self._places[name]
            if channels is not None:
                channels.add(name, array)
            if place.field == "word":
                self.arrays["word"], self.arrays["word_scale"] = _table(array)
            elif place.layer is None:
                self.arrays[place.field] = np.ascontiguousarray(array, np.float32)  # kernels take its address
            elif place.field.endswith("_packed"):
                waiting.append((place, array))
                waiting = [entry for entry in waiting if not self._pack(*entry, channels)]
            else:
                self.arrays[place.field][place.layer, place.first : place.first + len(array)] = array
            del array  # before the next one is read
        waiting = [entry for entry in waiting if not self._pack(*entry, channels)]
        assert not waiting, "a parameter is missing"

    def _pack(self, place: Place, array: Floats, channels: "_Channels | None") -> bool:
        """Quantise and pack a weight; False if its channels are not known yet."""
        product, layer = place.field.removesuffix("_packed"), place.layer
        assert layer is not None
        by = np.ones(array.shape[1], np.float32)
        if channels is not None and product in ("query_key_value", "intermediate"):
            number = 2 * layer + (product == "intermediate")
            found = channels.of(number)
            if found is None:
                return False
            self.arrays["channels"][number], by = np.float32(1) / found, found
        integers, scale = _quantised(array, by, self.bits)
        outputs = slice(place.first, place.first + len(array))
        pack(self.bits, integers.astype(np.int16 if self.bits == 16 else np.int8), self._packed(place), place.first)
        self.arrays[f"{product}_scale"][layer, outputs] = scale
        self.arrays[f"{product}_sum"][layer, outputs] = integers.sum(axis=1, dtype=np.int32)
        return True

    def _packed(self, place: Place) -> NDArray[Any]:
        return self.arrays[place.field][place.layer]

    def integers(self, name: str) -> NDArray[Any]:
        """The integers (N, K) of a dense layer's weight, by the checkpoint's name."""
        place = self._places[name]
        product = place.field.removesuffix("_packed")
        n_outputs, n_inputs = module_shape(product, self._config)
        return unpack(self.bits, self._packed(place), place.first, n_outputs, n_inputs)


def _quantised(weight: Floats, channels: Floats, bits: int) -> tuple[NDArray[np.int16], Floats]:
    """The integers (N, K) and the scales (N,) of a weight, by the compiled kernel."""
    weight = np.ascontiguousarray(weight, np.float32)
    N, K = weight.shape
    integers, scale = np.empty((N, padded_width(K)), np.int16), np.empty(N, np.float32)
    scratch = np.empty(K, np.float32)
    kernels = loading.load(bits)
    mode = kernels.exchange_float_mode(STANDARD_FLOAT_MODE)
    try:
        kernels.quantise_weight(
            weight.ctypes.data, channels.ctypes.data, 0 if bits == 16 else 127, integers.ctypes.data,
            scale.ctypes.data, scratch.ctypes.data, N, K,
        )  # fmt: skip
    finally:
        kernels.exchange_float_mode(mode)
    return integers[:, :K], scale


def _table(table: Floats) -> tuple[NDArray[np.int16], Floats]:
    """The word table in int16 (V, D padded) and its scales (V,); by the twin, before LLVM's memory is needed."""
    V, D = table.shape
    integers, scale = np.zeros((V, padded_width(D)), np.int16), np.empty(V, np.float32)
    for start in range(0, V, BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        rows = reference.quantise_symmetric(table[block], 32767)
        integers[block, :D], scale[block] = rows.integers, rows.scale
    return integers, scale


class _Channels:
    """The channels of each LayerNorm's output, found as the weights that decide them come in."""

    def __init__(self, config: ModelConfig) -> None:
        self._parts: dict[str, Floats] = {}
        self._moments: list[Moments] = []
        self._modules = ["embeddings"]
        for layer in range(config.num_hidden_layers):
            self._modules += [f"encoder.layer.{layer}.attention.output", f"encoder.layer.{layer}.output"]

    def add(self, name: str, array: Floats) -> None:
        module, kind, _ = name.rsplit(".", 2)
        if module not in self._modules or kind not in ("LayerNorm", "dense"):
            return
        self._parts[name] = array
        while len(self._moments) < len(self._modules) and self._next():
            pass

    def _next(self) -> bool:
        """Find the moments after one module more; False if one of its parameters is not there yet."""
        number = len(self._moments)
        module = self._modules[number]
        kinds = ("LayerNorm",) if number == 0 else ("dense", "LayerNorm")
        names = [f"{module}.{kind}.{parameter}" for kind in kinds for parameter in ("weight", "bias")]
        if not all(name in self._parts for name in names):
            return False
        parts = [self._parts.pop(name) for name in names]
        moments = reference.first_moments(*parts) if number == 0 else reference.next_moments(self._moments[-1], *parts)
        self._moments.append(moments)
        return True

    def of(self, number: int) -> Floats | None:
        """Channels after the module of this number; None if not known yet."""
        return reference.channels(self._moments[number]) if number < len(self._moments) else None
