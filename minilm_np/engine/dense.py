"""A Dense module after the pooling, for engines of compiled kernels: activation(x W^T + b), then normalisation.

Twin: `reference.dense`. The module is small, a product per text and not per token, so it is computed after the passes,
on one thread, in float32 for every compute type. The product is the kernel `linear`; the activation and the
normalisation are those of `doubles.py`. The bits are those of float32/CONTRACT.md.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm_np.engine.doubles import tanh, unit_length
from minilm_np.engine.float32 import loading
from minilm_np.engine.float32.kernels.layout import pack, packed_shape, unpack
from minilm_np.engine.float_mode import standard_float_mode
from minilm_np.engine.protocol import Arrays, Engine, Packed, PackingEngine, Report, Vectors, Weights
from minilm_np.model_files.config import ModelConfig

NamedWeights = Iterable[tuple[str, Vectors]]
Make = Callable[[ModelConfig, NamedWeights | Packed, Callable[[], NamedWeights] | None], Engine]

WEIGHT, BIAS = "dense.linear.weight", "dense.linear.bias"
_PACKED, _PACKED_BIAS = "dense_packed", "dense_bias"  # names of the packed arrays


def with_dense(
    make: Make, config: ModelConfig, weights: NamedWeights | Packed, reread: Callable[[], NamedWeights] | None
) -> Engine:
    """The engine that `make` returns for a config, its weights and `reread`; with the Dense module, if there is one."""
    if config.dense_size is None:
        return make(config, weights, reread)
    inner_config = replace(config, dense_size=None, normalize=False)
    own: Arrays = {}

    def inner(named: NamedWeights) -> Iterator[tuple[str, Vectors]]:
        for name, array in named:
            if name == WEIGHT:
                own[_PACKED] = np.zeros(packed_shape(*array.shape), np.float32)
                pack(array, own[_PACKED])
            elif name == BIAS:
                own[_PACKED_BIAS] = np.ascontiguousarray(array, np.float32)
            else:
                yield name, array

    def inner_packed(read: Callable[[], Arrays]) -> Arrays:
        arrays = read()
        own.update({name: arrays.pop(name) for name in (_PACKED, _PACKED_BIAS) if name in arrays})
        return arrays

    again = None if reread is None else lambda: ((n, a) for n, a in reread() if n not in (WEIGHT, BIAS))
    if isinstance(weights, Packed):
        read = weights.read
        engine = make(inner_config, Packed(lambda: inner_packed(read)), again)
    else:
        engine = make(inner_config, inner(weights), again)
    return DenseEngine(engine, config, own)


class DenseEngine:
    """An engine and a Dense module after it.

    engine: of the same model without the module and without normalisation. arrays: the packed weights of the module.
    """

    def __init__(self, engine: Engine, config: ModelConfig, arrays: Arrays) -> None:
        assert config.dense_size is not None
        self._engine, self._config, self._arrays = engine, config, arrays
        self._bias = arrays.get(_PACKED_BIAS, np.zeros(config.dense_size, np.float32))
        self._linear = loading.load_linear()

    @property
    def threads(self) -> int | None:
        return self._engine.threads

    def encode(
        self,
        texts: Sequence[Sequence[int]],
        *,
        normalize: bool,
        report: Report,
        token_type_ids: Sequence[Sequence[int]] | None = None,
    ) -> Vectors:
        pooled = self._engine.encode(texts, normalize=False, report=report, token_type_ids=token_type_ids)
        return self.output(pooled, normalize=normalize)

    def encode_with_hidden_states(
        self, texts: Sequence[Sequence[int]], *, normalize: bool, report: Report
    ) -> tuple[Vectors, list[Vectors]]:
        pooled, hidden_states = self._engine.encode_with_hidden_states(texts, normalize=False, report=report)
        return self.output(pooled, normalize=normalize), hidden_states

    def output(self, pooled: Vectors, *, normalize: bool) -> Vectors:  # (B, D) -> (B, G)
        vectors = self._dense(pooled)
        return unit_length(vectors) if normalize or self._config.normalize else vectors

    def intermediates(
        self, text: Sequence[int], token_type_ids: Sequence[int] | None = None
    ) -> dict[str, NDArray[Any]]:
        found = self._engine.intermediates(text, token_type_ids)
        dense = self._dense(found["pooling"][None])
        found["dense"] = dense[0]
        return found | ({"normalize": unit_length(dense)[0]} if self._config.normalize else {})

    def weights(self) -> Weights:
        return dict(self.iter_weights())

    def iter_weights(self) -> Iterator[tuple[str, Vectors]]:
        yield from self._engine.iter_weights()
        weight = unpack(self._arrays[_PACKED], 0, len(self._bias))
        weight.flags.writeable = False
        yield WEIGHT, weight
        if self._config.dense_bias:
            bias = self._bias.view()
            bias.flags.writeable = False
            yield BIAS, bias

    def packed(self) -> Arrays:
        assert isinstance(self._engine, PackingEngine)
        return self._engine.packed() | self._arrays

    def _dense(self, pooled: Vectors) -> Vectors:  # (B, D) -> (B, G)
        x = np.ascontiguousarray(pooled)
        (B, D), G = x.shape, len(self._bias)
        y = np.empty((B, G), np.float32)
        addresses = (array.ctypes.data for array in (x, self._arrays[_PACKED], self._bias, y))
        with (
            standard_float_mode(),
            np.errstate(all="ignore"),
        ):  # the caller names the text of a vector that is not finite
            self._linear(*addresses, B, G, D)
            return tanh(y.astype(np.float64)).astype(np.float32) if self._config.dense_activation == "tanh" else y
