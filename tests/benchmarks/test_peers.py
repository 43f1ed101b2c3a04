"""benchmarks.peers: batches, accuracy, groups and ratios, tables and the picture, from made-up measurements."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import exports
from benchmarks.contestants import CONTESTANTS
from benchmarks.padded import Padded
from benchmarks.peers_accuracy import CLOSE, EIGHT_BITS, FLOAT32, Accuracy, fault, one_minus_cosine, unit
from benchmarks.peers_chart import chart
from benchmarks.peers_figures import summary
from benchmarks.peers_report import tables
from benchmarks.texts import paragraphs


def test_every_export_of_a_contestant_can_be_made() -> None:
    assert {way.export for way in CONTESTANTS.values() if way.export} <= set(exports.FILES) == set(exports.MAKERS)


def test_the_halves_of_the_paragraphs_have_no_text_in_common() -> None:
    first, second = paragraphs(50, half=0), paragraphs(50, half=1)
    assert not set(first) & set(second)
    assert first == paragraphs(50, half=0)
    assert max(len(text.split()) for text in second) > 100


# ---- padded batches --------------------------------------------------------------------------------------------------


@pytest.mark.weights
@pytest.mark.parametrize("callers", [1, 2])
@pytest.mark.parametrize("size", [1, 20, 10_000])
def test_the_size_of_batches_does_not_change_vectors(model_folder: Path, callers: int, size: int) -> None:
    shapes = []

    def make_hidden() -> Any:
        def hidden(ids: list[list[int]], token_ids: Any, mask: Any) -> Any:
            shapes.append(token_ids.shape)
            assert [len(text) for text in ids] == mask.sum(axis=1).tolist()
            assert np.array_equal(token_ids[mask], np.concatenate(ids))
            return np.stack([token_ids, token_ids**2], axis=2).astype(np.float32)  # (B, T, 2)

        return hidden

    texts = ["a b c d e f g", "a", "how are you", "a b", "yes and no and yes"]
    found = Padded(str(model_folder), make_hidden, callers)(texts, size)
    alone = [Padded(str(model_folder), make_hidden, 1)([text])[0] for text in texts]
    np.testing.assert_allclose(found, alone, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    batches = shapes[: -len(texts)]
    assert sum(rows for rows, _ in batches) == len(texts)
    assert all(rows == 1 or rows * columns <= size for rows, columns in batches)
    assert len(batches) >= callers


# ---- accuracy --------------------------------------------------------------------------------------------------------


def test_one_minus_cosine_is_exact_where_it_is_small() -> None:
    a = unit(np.array([[1.0, 0.0], [3.0, 4.0], [1.0, 1e-9]]))
    b = unit(np.array([[0.0, 2.0], [3.0, 4.0], [1.0, 0.0]]))
    np.testing.assert_allclose(one_minus_cosine(a, b), [1.0, 0.0, 5e-19], rtol=1e-9)


@pytest.mark.parametrize(
    ("mean", "difference", "group"),
    [(1e-14, 2e-7, FLOAT32), (1e-9, 2e-5, CLOSE), (2e-5, 1e-2, CLOSE), (2e-4, 1e-2, EIGHT_BITS)],
)
def test_the_group_follows_from_the_accuracy(mean: float, difference: float, group: str) -> None:
    assert Accuracy(mean, 10 * mean, difference, None).group() == group


def test_wrong_vectors_are_a_fault_and_rounding_is_none() -> None:
    right = np.random.default_rng(0).standard_normal((4, 8), dtype=np.float32)
    assert fault(right + np.float32(0.01), right) is None
    assert "shape" in str(fault(right[:3], right))
    assert "not finite" in str(fault(right * np.float32(np.nan), right))
    assert "1 - cosine is" in str(fault(right[::-1], right))


# ---- groups and ratios -----------------------------------------------------------------------------------------------

# contestant: milliseconds of one text and of many texts, mean of 1 - cosine, Spearman
MADE_UP = {
    "minilm_np-float32": (10, 100, 1e-14, 82.0),
    "minilm_np-int16": (5, 50, 2e-7, 82.0),
    "minilm_np-int8": (4, 25, 1e-3, 81.9),
    "openvino-float32": (12, 150, 1e-14, 82.0),
    "openvino-float32-throughput": (14, 120, 1e-14, 82.0),
    "openvino-bf16": (8, 90, 2e-5, 82.0),
    "onnxruntime-int8": (6, 80, 8e-3, 81.6),
    "ctranslate2-int8": (1, 10, 4e-3, 81.4),
}


@pytest.fixture
def found() -> dict[str, Any]:
    """Measurements of two workloads, in two rounds; in the second, the peers are slower by a tenth."""

    def rounds(key: str, milliseconds: float) -> list[list[float]]:
        later = 1.0 if key.startswith("minilm_np") else 1.1
        return [[milliseconds / 1e3] * 3, [milliseconds / 1e3 * later] * 2]

    measured: dict[str, Any] = {
        "machine": {
            "processor": "a processor", "processors": 2, "memory_bytes": 2**30, "system": "Linux", "python": "3",
            "packages": {"numpy": "2"}, "load_average_at_start": 0.0,
        },
        "threads": 2,
        "busy": 1,
        "rounds": 2,
        "left_out": {"torch-bf16": "transformers is not installed"},
        "workloads": {
            "text_121": {"title": "1 text of 121 tokens", "texts": 1, "tokens": 121, "flops": 10**9},
            "short": {"title": "1,000 short sentences", "texts": 1000, "tokens": 14000, "flops": 10**10},
        },
        "accuracy": {
            key: {
                "mean": mean, "largest": 2 * mean, "largest_difference": 1e-7 if mean < 1e-9 else 1e-3,
                "spearman": spearman,
            }
            for key, (_, _, mean, spearman) in MADE_UP.items()
        },
        "times": {
            "text_121": {key: rounds(key, one) for key, (one, _, _, _) in MADE_UP.items()},
            "short": {key: rounds(key, many) for key, (_, many, _, _) in MADE_UP.items()},
        },
        "sustained": {
            "text_121": {"seconds": 0.01, "peak_flops": 2e11},
            "short": {"seconds": 0.1, "peak_flops": 2e11},
        },
        "starts": {key: {"seconds": [0.25, 0.35], "memory": [2e8, 2e8]} for key in MADE_UP},
        "sizes": {way.engine.name: {"a": 10**8} for way in CONTESTANTS.values()},
    }  # fmt: skip
    measured["summary"] = summary(measured)
    return measured


def test_the_fastest_variant_counts_for_each_workload(found: dict[str, Any]) -> None:
    times = found["summary"]["times"]
    assert times["text_121"]["OpenVINO float32"]["contestant"] == "openvino-float32"
    assert times["short"]["OpenVINO float32"]["contestant"] == "openvino-float32-throughput"


def test_an_engine_that_ranks_worse_is_shown_and_not_counted(found: dict[str, Any]) -> None:
    rows = found["summary"]["rows"]
    assert [name for name, row in rows.items() if not row["counted"]] == ["CTranslate2 int8"]
    assert "81.40 (not counted)" in tables(found)


def test_a_ratio_compares_with_the_fastest_peer_of_the_group_or_of_a_more_accurate_one(found: dict[str, Any]) -> None:
    ratios = found["summary"]["ratios"]["text_121"]
    peers = {heading: figures["best_peer"] for heading, figures in ratios.items()}
    assert peers == {
        "float32": "OpenVINO float32",
        "int16, against bf16": "OpenVINO bf16",
        "int16, against all": "ONNX Runtime int8",
        "int8, against all": "ONNX Runtime int8",
    }
    assert ratios["float32"]["ratio"] == pytest.approx(1.2)  # of all calls: most are of the first round
    assert ratios["float32"]["ratio_of_rounds"] == pytest.approx([1.2, 1.32])
    assert ratios["int8, against all"]["ratio_percentile_90"] == pytest.approx(6.6 / 4)
    found["accuracy"]["openvino-bf16"]["mean"] = 1e-3  # then nothing but float32 is as close as bf16
    assert summary(found)["ratios"]["text_121"]["int16, against bf16"]["best_peer"] == "OpenVINO float32"


def test_without_peers_there_is_no_ratio(found: dict[str, Any]) -> None:
    for part in (found["accuracy"], *found["times"].values(), found["starts"]):
        for key in [key for key in part if not key.startswith("minilm_np")]:
            del part[key]
    found["summary"] = summary(found)
    assert set(found["summary"]["ratios"]["short"].values()) == {None}
    assert "| 1,000 short sentences | - | - | - | - |" in _squeezed(tables(found))


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def test_the_tables_show_every_figure(found: dict[str, Any]) -> None:
    text = _squeezed(tables(found))
    for expected in (
        "2 threads per engine, beside 1 busy process",
        "| **minilm_np int16** | 5 | 50 | 2.0e-07 | 4.0e-07 | 82.00 |",
        "| 1 text of 121 tokens | 10 | 12 (OpenVINO float32) | 5 | 8 (OpenVINO bf16) | 4 | 6 (ONNX Runtime int8) |",
        "1.20 (1.20-1.32) OpenVINO float32",
        "| minilm_np int8 (numba) | 0.30 s (0.28-0.32) | 200 MB | 100 MB in 1 packages |",
        "| 1 text of 121 tokens | 100 | 200 | 50 % |",
        "left out: torch-bf16: transformers is not installed",
    ):
        assert expected in text, text


def test_the_chart_is_a_picture(found: dict[str, Any], tmp_path: Path) -> None:
    chart(found, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
