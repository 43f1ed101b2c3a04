"""The weights of a layer's products, packed for both directions, and memory for their gradients."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from minilm_np.engine.float32.kernels.layout import packed_shape
from minilm_np.engine.products import PRODUCTS
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.config import ModelConfig

Array = NDArray[np.float32]


class Product:
    """One product of one layer: y (N, M) = x (N, K) @ weight.T + bias."""

    def __init__(self, weights: Mapping[str, Array], modules: tuple[str, ...]) -> None:
        self._weights = [weights[f"{module}.weight"] for module in modules]
        self._biases = [weights[f"{module}.bias"] for module in modules]
        self.M, self.K = sum(len(weight) for weight in self._weights), self._weights[0].shape[1]
        self.weight_packed = np.zeros(packed_shape(self.M, self.K), np.float32)  # for y
        self.transposed_packed = np.zeros(packed_shape(self.K, self.M), np.float32)  # for d_x
        self.bias = np.empty(self.M, np.float32)

    def packing(self) -> Iterator[tuple[int, ...]]:
        """Copy the current biases; yield the arguments of the kernel `pack`, which packs the current weights."""
        np.concatenate(self._biases, out=self.bias)
        first = 0
        packed = self.weight_packed.ctypes.data, self.transposed_packed.ctypes.data
        for weight in self._weights:
            yield weight.ctypes.data, *packed, *weight.shape, first, self.M
            first += len(weight)


def products(config: ModelConfig, weights: Mapping[str, Array]) -> list[dict[str, Product]]:
    """The products of each layer, by name."""
    scopes = [f"encoder.layer.{number}" for number in range(config.num_hidden_layers)]
    return [
        {name: Product(weights, tuple(f"{scope}.{module}" for module in modules)) for name, modules in PRODUCTS.items()}
        for scope in scopes
    ]


class Gradients:
    """Zeros for the gradients of all parameters except the word embeddings.

    The gradients of a product's weights are adjacent in memory, and so are those of its biases.
    """

    def __init__(self, config: ModelConfig) -> None:
        shapes = parameter_shapes(config)
        shapes.pop("embeddings.word_embeddings.weight")
        memory = np.zeros(sum(map(math.prod, shapes.values())), np.float32)
        self.arrays: dict[str, Array] = {}  # by the parameter's name
        self.products: list[dict[str, tuple[Array, Array]]] = []  # by layer and product: weight (M, K), bias (M,)
        taken = 0

        def take(names: list[str]) -> Array:
            """Allocate the arrays of these names, one after the other; return them as one array."""
            nonlocal taken
            start = taken
            for name in names:
                size = math.prod(shapes[name])
                self.arrays[name] = memory[taken : taken + size].reshape(shapes.pop(name))
                taken += size
            return memory[start:taken].reshape(-1, *self.arrays[names[0]].shape[1:])

        for number in range(config.num_hidden_layers):
            scope = f"encoder.layer.{number}"
            self.products.append({
                name: (
                    take([f"{scope}.{module}.weight" for module in modules]),
                    take([f"{scope}.{module}.bias" for module in modules]),
                )
                for name, modules in PRODUCTS.items()
            })  # fmt: skip
        for name in list(shapes):
            take([name])
