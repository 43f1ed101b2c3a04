"""The integer engine: the float32 engine with integers in its dense layers, "int16" or "int8".

Twin: `reference.py` here. Passes, threads and workspaces are those of `float32/engine.py`; the order of the operations
is in `kernels/forward.py`. The bits of a vector are those of CONTRACT.md, on every processor.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from minilm_np.engine.float32.engine import Float32Engine
from minilm_np.engine.integer import loading
from minilm_np.engine.integer.kernels.layout import rows_shape
from minilm_np.engine.integer.kernels.passes import LAYER_STAGES, Pass
from minilm_np.engine.integer.packing import BITS, IntegerWeights
from minilm_np.engine.integer.reference import COMPUTE_TYPES
from minilm_np.engine.protocol import Arrays, Packed, Vectors
from minilm_np.errors import CheckpointError, InputValueError
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.config import ModelConfig

Weights = Iterable[tuple[str, Vectors]]

# Each task reads all weights. 64 rows of int16 take less time than twice 32 rows; of int8 they take as long.
_TASK_ROWS = {"int16": 64, "int8": 32}


class IntegerEngine(Float32Engine):
    """A model's weights as integers, and the threads that multiply them.

    compute_type: "int16" or "int8". reread: called by `weights`, returns the weights once more; None if the float32
    arrays are to be kept in memory for that; necessary if the weights are packed. The other parameters and errors are
    those of `Float32Engine`.

    Raises InputValueError also for an unknown compute type.
    """

    layer_stages = LAYER_STAGES

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights | Packed,
        threads: int | None = None,
        *,
        compute_type: str = "int16",
        reread: Callable[[], Weights] | None = None,
    ) -> None:
        if compute_type not in COMPUTE_TYPES:
            raise InputValueError(
                f"compute_type: expected {' or '.join(map(repr, COMPUTE_TYPES))}, found {compute_type!r}"
            )
        self.compute_type = compute_type
        self.task_rows = _TASK_ROWS[compute_type]
        self._reread = reread
        super().__init__(config, weights, threads)

    def _load(self, weights: Weights | Packed) -> None:
        if isinstance(weights, Packed):
            loading.load(BITS[self.compute_type])  # first, because another thread reads the weights meanwhile
        elif self._reread is None:
            kept = dict(weights)
            self._reread, weights = kept.items, kept.items()
        self._integers = IntegerWeights(self.config, weights, self.compute_type)
        self.kernels = loading.load(self._integers.bits)

    def _described(self) -> Any:
        return Pass(**self._fields(self._integers.arrays))

    def packed(self) -> Arrays:
        """The weights as integers in the layout of the kernels, by field of `Pass`."""
        return self._integers.arrays

    def weights(self) -> dict[str, Vectors]:
        """The original float32 weights, by the names and in the order of `parameter_shapes`; read-only.

        The engine has integers only: they are read again from their source. Raises CheckpointError if they are not
        those that this engine was made from.
        """
        assert self._reread is not None
        found = dict(self._reread())
        again = IntegerWeights(self.config, found.items(), self.compute_type)
        for field, array in self._integers.arrays.items():
            if not np.array_equal(again.arrays[field], array):
                raise CheckpointError(
                    f"{field}: the weights have changed since this model was loaded; load it again, and keep its files"
                )
        weights = {}
        for name in parameter_shapes(self.config):
            weights[name] = found[name].view()
            weights[name].flags.writeable = False
        return weights

    def iter_weights(self) -> Iterator[tuple[str, Vectors]]:
        """The items of `weights()`."""
        return iter(self.weights().items())

    def results(self, arrays: Mapping[str, Vectors]) -> tuple[dict[str, Vectors], ...]:
        """What each stage of a layer leaves in the arrays of a workspace, by the names of `reference.py`."""
        query_key_value, context, product, norm, intermediate, output, output_norm = super().results(arrays)
        return query_key_value, context, {}, product, norm, intermediate, {}, output, output_norm

    def workspace_arrays(self, n_tokens: int, longest: int, members: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and dtype of the arrays that a pass writes, by field of `Pass`."""
        D, F = self.config.hidden_size, self.config.intermediate_size
        return super().workspace_arrays(n_tokens, longest, members) | {
            "rows": (rows_shape(self._integers.bits, n_tokens, D), np.uint8),
            "wide_rows": (rows_shape(self._integers.bits, n_tokens, F), np.uint8),
            "row_scale": ((n_tokens,), np.float32),
            "row_zero": ((n_tokens,), np.int32),
        }
