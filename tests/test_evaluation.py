"""Test the evaluation: correlations against SciPy, retrieval against all orders of ties, file forms, error messages."""

import gzip
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from minilm_np import SentenceEncoder, evaluation
from minilm_np.errors import DataError, InputTypeError, InputValueError
from minilm_np.evaluation import pearson, ranks, read_sts, retrieval, retrieval_vectors, spearman, sts


def test_evaluation_imports_nothing_of_training() -> None:
    code = "import minilm_np.evaluation, sys; print([name for name in sys.modules if '.train' in name])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


# ---- correlations ----------------------------------------------------------------------------------------------------

# few distinct values, which give many ties; or many values, of any size that a float holds
VALUES = st.one_of(st.integers(0, 4).map(float), st.floats(-1e300, 1e300).filter(lambda x: x == 0 or abs(x) > 1e-290))


@given(st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=30))
def test_ranks_and_spearman_equal_scipys(pairs: list[tuple[float, float]]) -> None:
    x, y = np.array(pairs).T
    np.testing.assert_array_equal(ranks(x), stats.rankdata(x))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(spearman(x, y))
    else:
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=30), st.floats(1e-3, 1e3))
def test_pearson_equals_scipys(pairs: list[tuple[int, int]], scale: float) -> None:
    x, y = np.array(pairs, float).T * scale
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(pearson(x, y))
    else:
        assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)


def test_pearson_of_very_large_and_very_small_numbers() -> None:
    assert pearson([1e300, 2e300, 4e300], [1e-300, 2e-300, 4e-300]) == pytest.approx(1, abs=1e-15)
    assert pearson([1, 2, 3], [-1e-200, -2e-200, -3e-200]) == pytest.approx(-1, abs=1e-15)


@pytest.mark.parametrize(("x", "y"), [([1.0], [1.0]), ([1.0, 2.0], [1.0, 2.0, 3.0]), ([], [])])
def test_series_that_cannot_be_compared_are_refused(x: list[float], y: list[float]) -> None:
    with pytest.raises(InputValueError, match="expected two series of the same length, at least 2, found"):
        spearman(x, y)


def test_a_series_with_nan_is_refused() -> None:
    with pytest.raises(InputValueError, match=r"^x: expected finite numbers, found nan at position 1$"):
        pearson([1, math.nan], [1, 2])
    with pytest.raises(InputTypeError, match=r"^values: cannot be read as an array of numbers: could not convert"):
        spearman([1, 2], [1, "two"])  # type: ignore[arg-type]


# ---- retrieval -------------------------------------------------------------------------------------------------------


def in_one_order(order: tuple[int, ...], relevant: list[int], k: int) -> dict[str, float]:
    """The measures of one ranked list of documents, by their definitions."""
    places = [place for place, document in enumerate(order, 1) if document in relevant]
    gain = sum(1 / math.log2(1 + place) for place in places if place <= k)
    ideal = sum(1 / math.log2(1 + place) for place in range(1, min(len(relevant), k) + 1))
    return {
        f"MRR@{k}": 1 / places[0] if places[0] <= k else 0,
        **{f"recall@{c}": sum(place <= c for place in places) / len(relevant) for c in sorted({1, 5, k})},
        f"nDCG@{k}": gain / ideal,
    }


@st.composite
def searches(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """The scores of up to 6 documents, from 4 levels, and the rows of the relevant ones."""
    scores = draw(st.lists(st.integers(0, 3), min_size=1, max_size=6))
    rows = st.sampled_from(range(len(scores)))
    return scores, draw(st.lists(rows, min_size=1, max_size=len(scores), unique=True))


@given(searches(), st.integers(1, 6))
def test_ties_count_as_the_mean_over_all_their_orders(search: tuple[list[int], list[int]], k: int) -> None:
    scores, relevant = search
    angles = np.arccos(np.array(scores) / 4)  # cosines of 0, 1/4, 1/2, 3/4 with the query
    documents = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.arange(1, len(scores) + 1)[:, None]
    found = retrieval_vectors([[2.0, 0.0]], documents, [relevant], k=k)
    orders = [
        in_one_order(order, relevant, k)
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    expected = {name: np.mean([order[name] for order in orders]) for name in orders[0]}
    assert found == pytest.approx({"queries": 1, "documents": len(scores)} | expected, abs=1e-12)


def test_retrieval_equals_a_plain_sort_where_there_are_no_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    queries, documents = generator.normal(size=(40, 8)), generator.normal(size=(300, 8))
    relevant = [generator.choice(300, generator.integers(1, 12), replace=False).tolist() for _ in queries]
    cosines = queries @ (documents / np.linalg.norm(documents, axis=1, keepdims=True)).T
    each = [in_one_order(tuple(np.argsort(-c)), own, 10) for c, own in zip(cosines, relevant, strict=True)]
    expected = {name: float(np.mean([measures[name] for measures in each])) for name in each[0]}
    expected |= {"queries": 40, "documents": 300}
    found = retrieval_vectors(queries, documents, relevant)
    assert found == pytest.approx(expected, abs=1e-12)
    assert list(found) == ["queries", "documents", "MRR@10", "recall@1", "recall@5", "recall@10", "nDCG@10"]
    monkeypatch.setattr(evaluation, "SCORES_AT_A_TIME", 700)  # two queries at a time
    assert retrieval_vectors(queries, documents, relevant) == pytest.approx(found, abs=1e-15)


def test_a_model_that_gives_all_texts_one_vector_is_as_good_as_chance() -> None:
    found = retrieval_vectors(np.ones((50, 384)), np.ones((1000, 384)) * 0.1, [[n] for n in range(50)])
    assert found["recall@10"] == pytest.approx(0.01)
    assert found["MRR@10"] == pytest.approx(sum(1 / place for place in range(1, 11)) / 1000)


@pytest.mark.parametrize(
    ("queries", "documents", "relevant", "message"),
    [
        (np.ones(3), np.ones((2, 3)), [[0]], r"queries: expected an array \(n, D\), found the shape \(3,\)"),
        (np.ones((1, 3)), np.ones((2, 4)), [[0]], r"found the shapes \(1, 3\) and \(2, 4\)"),
        (np.ones((0, 3)), np.ones((2, 3)), [], r"at least one of each, found the shapes \(0, 3\) and \(2, 3\)"),
        (
            np.ones((1, 3)),
            np.full((2, 3), np.nan),
            [[0]],
            "documents: expected finite numbers, found NaN or infinity in row 0",
        ),
        (np.ones((2, 3)), np.ones((2, 3)), [[0]], "relevant: expected one list per query, 2 in all, found 1"),
        (
            np.ones((1, 3)),
            np.ones((2, 3)),
            [[]],
            r"relevant\[0\]: expected distinct rows of documents, from 0 to 1, at least",
        ),
        (np.ones((1, 3)), np.ones((2, 3)), [[2]], r"relevant\[0\]: expected distinct rows of documents, from 0 to 1"),
        (
            np.ones((1, 3)),
            np.ones((2, 3)),
            [[1, 1]],
            r"relevant\[0\]: expected distinct rows of documents, from 0 to 1",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(queries: Any, documents: Any, relevant: Any, message: str) -> None:
    with pytest.raises(InputValueError, match=message):
        retrieval_vectors(queries, documents, relevant)


# ---- files -----------------------------------------------------------------------------------------------------------


class Angles:
    """An encoder of texts that are numbers of degrees: 3 (cos, sin) of the angle. `asked` lists the encoded texts."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        angles = np.radians([float(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32) * 3


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def test_retrieval_judges_each_line_by_its_own_document(tmp_path: Path) -> None:
    # the query 0 is nearest to 10, then 20; 50 to 60
    path = put(tmp_path, "a.tsv", "0\t10\n0\t20\n50\t60\n50\t10\n")
    found = retrieval(encoder := Angles(), path, k=2)
    assert sorted(encoder.asked, key=int) == ["0", "10", "20", "50", "60"]  # each text once
    assert found == pytest.approx(
        {"queries": 4, "documents": 3, "MRR@2": (1 + 1 / 2 + 1 + 0) / 4}
        | {"recall@1": 2 / 4, "recall@2": 3 / 4, "recall@5": 1, "nDCG@2": (1 + 1 / math.log2(3) + 1 + 0) / 4}
    )


def test_retrieval_encodes_queries_and_documents_with_their_prompts(tmp_path: Path) -> None:
    encoder = SentenceEncoder.random(backend="numpy")
    encoder.prompts.update(query="query: ", document="passage: ")
    pairs = {f"what is {letter}": f"{letter} is a letter" for letter in "abcdefghij"}
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{query}\t{document}\n" for query, document in pairs.items()))
    queries = encoder.encode([*pairs], prompt="query: ")
    documents = encoder.encode([*pairs.values()], prompt="passage: ")
    expected = retrieval_vectors(queries, documents, [[row] for row in range(10)])
    assert retrieval(encoder, path) == expected
    encoder.prompts.update(query="", document="")
    assert retrieval(encoder, path) != expected


def test_retrieval_can_merge_the_lines_of_a_query(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", '["0", "10"]\n["0", "20"]\n["0", "10"]\n["50", "60"]\n')
    found = retrieval(Angles(), path, merge_queries=True)
    assert (found["queries"], found["documents"]) == (2, 3)
    assert found["MRR@10"] == found["nDCG@10"] == 1
    assert found["recall@1"] == (1 / 2 + 1) / 2


def test_further_columns_are_documents_that_are_not_relevant(tmp_path: Path) -> None:
    found = retrieval(Angles(), put(tmp_path, "a.tsv.gz", "0\t10\t5\n40\t50\t100\n"))
    assert found["documents"] == 4
    assert found["MRR@10"] == (1 / 2 + 1) / 2


STS = {  # the cosines fall as the scores do, but for the last two
    "a.tsv": 'Score\tsentence1\tx\tsentence2\r\n5\t0\t"\t1\r\n4\t0\t\t30\r\n1\t0\t\t80\r\n2\t0\t\t90\r\n',
    "b.csv": 'sentence1,sentence2,score\n"0",1,5\n0,"30",4\n0,80,1\n\n0,"90\n",2\n',
    "c.csv": "".join(f"main\tMSRvid\t2012\t{n}\t{s}\t0\t{a}\tmore\n" for n, s, a in [(1, 5, 1), (2, 4, 30), (3, 1, 80)])
    + "main\tMSRvid\t2012\t4\t2.000\t0\t90\n",
    "d.tsv.gz": "\ufeffset\tscore\tsentence1\tsentence2\ndev\t5\t0\t1\ndev\t4\t0\t30\ndev\t1\t0\t80\n\ndev\t2\t0\t90\n",
}


@pytest.mark.parametrize("name", STS)
def test_sts_reads_each_of_the_usual_forms(tmp_path: Path, name: str) -> None:
    cosines = np.cos(np.radians([1, 30, 80, 90]))
    found = sts(encoder := Angles(), put(tmp_path, name, STS[name]))
    assert len(encoder.asked) == 5
    assert found == pytest.approx(
        {"pairs": 4, "spearman": 0.8, "pearson": stats.pearsonr(cosines, [5, 4, 1, 2]).statistic}, abs=1e-7
    )


def test_quotes_quote_in_csv_and_are_text_in_tsv(tmp_path: Path) -> None:
    table = 'score{0}sentence1{0}sentence2\n1{0}"a, b{0}c"\n2{0}d{0}"e"\n'
    assert read_sts(put(tmp_path, "a.tsv", table.format("\t")))[1:] == (['"a, b', "d"], ['c"', '"e"'])
    quoted = 'score,sentence1,sentence2\n1,"a, ""b""","c\nd"\n2,e,f\n'
    assert read_sts(put(tmp_path, "a.csv", quoted)) == ([1, 2], ['a, "b"', "e"], ["c\nd", "f"])


def test_the_correlation_of_equal_cosines_is_undefined(tmp_path: Path) -> None:
    path = put(tmp_path, "a.tsv", "score\tsentence1\tsentence2\n1\t0\t0\n2\t90\t90\n")
    found = sts(Angles(), path)
    assert math.isnan(found["spearman"])
    assert math.isnan(found["pearson"])


HEAD = "score\tsentence1\tsentence2\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "", "a.tsv, line 1: expected a header that names the columns score, sentence1 and sentence2, or the"),
        ("a.tsv", "5\tone\ttwo\n", "a.tsv, line 1: expected a header"),
        ("a.csv", "label,sentence1,sentence2\n", "a.csv, line 1: expected a header"),
        ("a.tsv", HEAD, "a.tsv: expected at least two distinct scores, for a correlation, found 0 (0 pairs)"),
        ("a.tsv", HEAD + "1\ta\tb\n1\tc\td\n", "a.tsv: expected at least two distinct scores, for a correlation, fou"),
        ("a.tsv", HEAD + "1\ta\tb\n2\tc\n", "a.tsv, line 3: expected at least 3 columns, found 2"),
        ("a.tsv", HEAD + "1\ta\tb\nhigh\tc\td\n", "a.tsv, line 3: score: expected a number, found 'high'"),
        ("a.tsv", HEAD + "nan\ta\tb\n", "a.tsv, line 2: score: expected a number, found 'nan'"),
        ("a.tsv", HEAD + "1\t \tb\n", "a.tsv, line 2: sentence1 is empty"),
        ("a.csv", 'score,sentence1,sentence2\n1,"a\nb",c\n2,"d"e,f\n', "a.csv, line 4: broken CSV: "),
        ("a.csv", "score,sentence1,sentence2\n1,a," + "x" * 140_000 + "\n", "a.csv, line 2: broken CSV: "),
        ("a.csv", 'score,sentence1,sentence2\n1,"a,b\n', "a.csv, line 2: broken CSV: "),
        (
            "a.jsonl",
            '"a" "b"\n',
            "a.jsonl, line 1: broken CSV: ',' expected after '\"': expected the columns score, sentence1 and "
            "sentence2, separated by tabs or as CSV",
        ),
        ("a.jsonl", '["a", "b"]\n', "a.jsonl, line 1: expected a header that names the columns score, sentence1 and"),
    ],
)
def test_a_broken_sts_file_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = put(tmp_path, name, text)
    with pytest.raises(DataError) as caught:
        sts(Angles(), path)
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(message)


def test_files_that_are_not_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(HEAD.encode() + b"1\ta\t\xff\n")
    with pytest.raises(DataError, match=r"a\.tsv, line 2: expected UTF-8, found byte 0xff at position 4"):
        sts(Angles(), path)
    with pytest.raises(DataError, match=r"b\.tsv cannot be read: No such file"):
        sts(Angles(), tmp_path / "b.tsv")
    packed = put(tmp_path, "c.tsv.gz", HEAD)
    packed.write_bytes(packed.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"c\.tsv\.gz, line 2: the gzip data is broken: "):
        sts(Angles(), packed)
    with pytest.raises(DataError, match=r"d\.jsonl, line 2: expected JSON: "):
        retrieval(Angles(), put(tmp_path, "d.jsonl", json.dumps(["a", "b"]) + "\n{"))


@pytest.mark.weights
def test_the_published_model_ranks_as_people_do(published: SentenceEncoder, tmp_path: Path) -> None:
    rows = [
        ("5.0", "A plane is taking off.", "An air plane is taking off."),
        ("3.8", "A man is playing a large flute.", "A man is playing a flute."),
        ("1.6", "A woman is cutting an onion.", "A man is riding a horse."),
        ("0.0", "The weather is lovely today.", "Stocks fell on Monday."),
    ]
    path = put(tmp_path, "a.tsv", HEAD + "".join("\t".join(row) + "\n" for row in rows))
    found = sts(published, path)
    assert found["spearman"] >= 0.8
    pairs = put(tmp_path, "b.tsv", "".join("\t".join(row[1:]) + "\n" for row in rows[:2]))
    assert retrieval(published, pairs)["MRR@10"] == 1


def test_retrieval_puts_the_prompts_before_queries_and_documents(tmp_path: Path) -> None:
    encoder = SentenceEncoder.random(seed=3, backend="numpy")
    pairs = [(f"q{number} ?", f"{number} a {number}") for number in range(30)]
    (tmp_path / "pairs.tsv").write_text("".join(f"{query}\t{document}\n" for query, document in pairs))
    without = retrieval(encoder, tmp_path / "pairs.tsv")
    encoder.prompts = {"query": "xyz xyz: ", "document": "abc: "}
    found = retrieval(encoder, tmp_path / "pairs.tsv")
    queries, documents = (list(texts) for texts in zip(*pairs, strict=True))
    vectors = encoder.encode_query(queries), encoder.encode_document(documents)
    assert found == retrieval_vectors(*vectors, [[row] for row in range(30)])
    assert found != without
    np.testing.assert_array_equal(vectors[0], encoder.encode([f"xyz xyz: {text}" for text in queries]))
    np.testing.assert_array_equal(vectors[1], encoder.encode([f"abc: {text}" for text in documents]))
