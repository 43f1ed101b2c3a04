"""Ray Data: add a column of vectors to a dataset, on all processors of a machine or of a cluster."""

import os
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from minilm_np._checks import check_choice, check_int
from minilm_np.errors import InputValueError
from minilm_np.integrations import Backend, missing, settled
from minilm_np.model_files.manifest import DEFAULT_MODEL
from minilm_np.sentence_encoder import SentenceEncoder

try:
    import ray
    import ray.data
except ModuleNotFoundError as error:
    raise missing("ray", "'ray[data]'", error) from error

if TYPE_CHECKING:
    import pyarrow

BATCH_ROWS = 4096  # rows per call of an actor; the encoder sorts them by length, and bounds its memory by tokens
RESERVED = 0.5  # of a processor, for each thread of an actor: tasks that read and write run beside the actors


def embed_dataset(
    dataset: ray.data.Dataset,
    column: str,
    *,
    output_column: str = "embedding",
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    threads_per_actor: int | None = None,
    actors: int | None = None,
    backend: Backend = "numba",
    compute_type: str = "float32",
    normalize_embeddings: bool = False,
    truncate_dim: int | None = None,
    on_truncation: Literal["warn", "ignore", "error"] = "warn",
) -> ray.data.Dataset:
    """Return the dataset with one column more: the vector of each row's text, as a list of float32 of fixed size.

    dataset: a Ray dataset. column: its column of texts. output_column: the name of the new column.
    model: a model's name, or a folder that holds a model on every machine.
    threads_per_actor: threads of each actor. None: one actor per machine, with all processors of the smallest machine.
    actors: number of actors. None: as many as fill the processors of the cluster.
    backend, compute_type: as for `SentenceEncoder`. normalize_embeddings, truncate_dim, on_truncation: as for
        its `encode`. Warnings appear in the log of the actor, which Ray prints.

    Each actor loads the model once. An actor that dies is started again by Ray, and its batches are computed again; the
    vectors have the same bits wherever they are computed. Nothing is computed before the result is read.
    Raises InputTypeError, InputValueError. A text that is missing raises InputTypeError in the actor, which Ray wraps.
    """
    if column == output_column:
        raise InputValueError(f"output_column: expected another name than that of the texts' column, found {column!r}")
    processors = _processors()
    threads = min(processors) if threads_per_actor is None else check_int("threads_per_actor", threads_per_actor, 1)
    fitting = max(1, sum(n // threads for n in processors))
    options = {"backend": backend, "threads": threads, "compute_type": compute_type}
    check_choice("on_truncation", on_truncation, ("warn", "ignore", "error"))
    call = {
        "normalize_embeddings": normalize_embeddings, "truncate_dim": truncate_dim, "on_truncation": on_truncation,
    }  # fmt: skip
    return dataset.map_batches(
        _Embedder,
        batch_format="pyarrow",
        batch_size=BATCH_ROWS,
        zero_copy_batch=True,
        compute=ray.data.ActorPoolStrategy(size=fitting if actors is None else check_int("actors", actors, 1)),
        fn_constructor_args=(settled(model), options, call, column, output_column),
        num_cpus=RESERVED * threads,
    )  # by default Ray Data spreads actors: one per machine, where there are as many machines as actors


def _processors() -> list[int]:
    """The number of processors of each machine of the cluster that has any."""
    if not ray.is_initialized():
        ray.init()
    found = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return [n for n in found if n] or [1]


class _Embedder:
    """An actor: a loaded model, and what it does with each batch."""

    def __init__(
        self, model: str, options: dict[str, Any], call: dict[str, Any], column: str, output_column: str
    ) -> None:
        self._encoder = SentenceEncoder(model, **options)
        self._call, self._column, self._output = call, column, output_column

    def __call__(self, batch: "pyarrow.Table") -> "pyarrow.Table":
        import pyarrow

        for name, present in ((self._column, True), (self._output, False)):
            if (name in batch.column_names) is not present:
                raise InputValueError(
                    f"column {name!r}: expected {'a' if present else 'no'} column of this name, found the columns "
                    f"{', '.join(batch.column_names)}"
                )
        texts = batch.column(self._column)
        vectors = np.ascontiguousarray(self._encoder.encode(texts, **self._call))
        flat = pyarrow.array(vectors.ravel(), pyarrow.float32())
        return batch.append_column(self._output, pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))
