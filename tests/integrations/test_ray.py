"""Ray Data: `embed_dataset` on a real local cluster, with a worker that is killed in the middle."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm_np import InputTypeError, InputValueError, SentenceEncoder
from tests.support.compare import assert_same_bits

# Ray warns about itself
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]

WORKER = "MapWorker"  # in the name of the process of an actor of Ray Data


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A local cluster of two processors, without a dashboard; it ends with the file of tests."""
    ray = pytest.importorskip("ray")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 << 20,
        runtime_env={"env_vars": {"RAY_DATA_DISABLE_PROGRESS_BARS": "1"}},
        _temp_dir=os.path.join("/tmp", f"ray-{os.getpid()}"),  # the paths of its sockets may have 107 bytes only
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


def texts(count: int) -> list[str]:
    return [f"row {number} {'word ' * (number % 9)}" for number in range(count)]


def workers() -> list[int]:
    """The processes of the actors."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and WORKER in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended
    return found


def vectors(rows: list[dict[str, Any]]) -> np.ndarray:
    return np.array([row["embedding"] for row in rows], np.float32)


def test_a_killed_worker_changes_no_bit(cluster: Any, small: Path) -> None:
    """The vectors are those of one process, also if one of two workers is killed in the middle."""
    from minilm_np.integrations.ray import embed_dataset

    rows = [{"id": number, "text": text} for number, text in enumerate(texts(3000))]
    dataset = cluster.data.from_items(rows, override_num_blocks=6)
    embedded = embed_dataset(dataset, "text", model=small, threads_per_actor=1, actors=2)
    batches: Iterator[Any] = iter(embedded.iter_batches(batch_size=250, batch_format="pyarrow", prefetch_batches=0))
    found = [next(batches)]
    killed = workers()[0]
    os.kill(killed, signal.SIGKILL)
    found += list(batches)
    table: dict[int, dict[str, Any]] = {row["id"]: row for batch in found for row in batch.to_pylist()}
    assert sorted(table) == list(range(3000)) and killed not in workers()
    expected = SentenceEncoder(small).encode(texts(3000))
    assert_same_bits(vectors([table[number] for number in range(3000)]), expected)


def test_parquet_files_are_read_and_written(cluster: Any, small: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from minilm_np.integrations.ray import embed_dataset

    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"n": range(50), "body": texts(50)}), tmp_path / "in" / "a.parquet")
    dataset = cluster.data.read_parquet(str(tmp_path / "in"))
    embed_dataset(dataset, "body", model=small, output_column="vector", truncate_dim=8).write_parquet(
        str(tmp_path / "out")
    )
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
