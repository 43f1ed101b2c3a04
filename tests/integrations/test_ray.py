"""Ray Data: `embed_dataset` on a real local cluster, with a worker that is killed in the middle."""

import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import InputTypeError, InputValueError, SentenceEncoder
from tests.support.compare import assert_same_bits

# Ray warns about itself
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A local cluster of two processors, without a dashboard; it ends with the file of tests."""
    ray = pytest.importorskip("ray")
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # the paths of its sockets may have 107 bytes only
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 << 20,
        runtime_env={"env_vars": {"RAY_DATA_DISABLE_PROGRESS_BARS": "1"}},
        _temp_dir=folder,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)  # a process that is ending may still write to its log


def texts(count: int) -> list[str]:
    return [f"row {number} {'word ' * (number % 9)}" for number in range(count)]


def vectors(rows: list[dict[str, Any]]) -> np.ndarray:
    return np.array([row["embedding"] for row in rows], np.float32)


def test_a_killed_worker_changes_no_bit(
    cluster: Any, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vectors are those of one process, also if a worker is killed before it returns a batch."""
    from minilm_np.integrations import ray as integration

    class Killed(integration._Embedder):
        """An actor that notes each batch; the first that computes the batch of row 1500 kills its own process."""

        def __call__(self, batch: Any) -> Any:
            rows = batch.column("id").to_pylist()
            result = super().__call__(batch)
            with open(tmp_path / f"worker-{os.getpid()}", "a") as notes:
                notes.write(f"{rows[0]}\n")
            if 1500 in rows:
                try:
                    os.close(os.open(tmp_path / "killed", os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    return result
                os.rename(tmp_path / f"worker-{os.getpid()}", tmp_path / f"dead-{os.getpid()}")
                os.kill(os.getpid(), signal.SIGKILL)
            return result

    monkeypatch.setattr(integration, "_Embedder", Killed)
    monkeypatch.setattr(integration, "BATCH_ROWS", 250)  # Ray joins smaller blocks: 3,000 rows would be one batch
    rows = [{"id": number, "text": text} for number, text in enumerate(texts(3000))]
    dataset = cluster.data.from_items(rows, override_num_blocks=12)
    embedded = integration.embed_dataset(dataset, "text", model=small, threads_per_actor=1, actors=2)
    table = embedded.take_all()
    assert sorted(row["id"] for row in table) == list(range(3000))
    expected = SentenceEncoder(small).encode(texts(3000))
    assert_same_bits(vectors(sorted(table, key=lambda row: row["id"])), expected)

    (dead,) = tmp_path.glob("dead-*")
    lost = dead.read_text().split()[-1]  # the batch that was computed and not returned
    computed_again = [path.name for path in tmp_path.glob("worker-*") if lost in path.read_text().split()]
    assert len(computed_again) == 1
    assert sum(len(path.read_text().split()) for path in tmp_path.glob("*-*")) >= 13  # 12 batches, one of them twice


def test_parquet_files_are_read_and_written(cluster: Any, small: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from minilm_np.integrations.ray import embed_dataset

    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"n": range(50), "body": texts(50)}), tmp_path / "in" / "a.parquet")
    dataset = cluster.data.read_parquet(str(tmp_path / "in"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the call passes nothing that Ray has deprecated
        embedded = embed_dataset(dataset, "body", model=small, output_column="vector", truncate_dim=8)
    embedded.write_parquet(str(tmp_path / "out"))
    table = pq.read_table(tmp_path / "out")
    assert table.column_names == ["n", "body", "vector"] and table.num_rows == 50
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 8)
    found = np.array(table.sort_by("n").column("vector").to_pylist(), np.float32)
    assert_same_bits(found, SentenceEncoder(small).encode(texts(50), truncate_dim=8))


def test_errors_say_what_is_wrong(cluster: Any, small: Path) -> None:
    from minilm_np.integrations.ray import embed_dataset

    dataset = cluster.data.from_items([{"text": "a"}, {"text": None}])
    with pytest.raises(InputValueError, match="output_column: expected another name than"):
        embed_dataset(dataset, "text", output_column="text")
    with pytest.raises(InputValueError, match="actors: expected an int of at least 1, found 0"):
        embed_dataset(dataset, "text", actors=0)
    with pytest.raises(Exception, match=r"InputTypeError.*text 1") as error:
        embed_dataset(dataset, "text", model=small, threads_per_actor=2).materialize()
    assert InputTypeError.__name__ in str(error.value)
    with pytest.raises(Exception, match="column 'body': expected a column of this name, found the columns text"):
        embed_dataset(dataset, "body", model=small, threads_per_actor=2).materialize()
