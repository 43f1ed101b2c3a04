"""Traces: the names and values are the reference's and torch's, the engine's end in its bits, files read back equal."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from minilm_np import InputTypeError, InputValueError, ModelConfig, SentenceEncoder, cli, reference
from minilm_np.engine.float32.engine import Float32Engine
from minilm_np.trace import Trace, dimensions, intermediates, tokens_of, trace
from tests.support.compare import assert_close, assert_same_bits
from tests.support.models import living_weights, ragged_ids, small_configs, torch_intermediates, torch_model

TEXT = "Naïve café, 東京 👍 [SEP] x"
NOT_IN_TORCH = (".scores", "pooling", "normalize")
FUSED = (".scores", ".probs", ".dense", "_embeddings")  # what the engine never has by itself


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder.random(seed=1, backend="numpy")


@pytest.fixture(scope="module")
def engine() -> SentenceEncoder:
    return SentenceEncoder.random(seed=1)


# ------------------------------------------------------------------------------------------------- names and values


@given(st.data())
@settings(max_examples=40)
def test_intermediates_are_torchs_by_its_names(data: st.DataObject) -> None:
    config = data.draw(small_configs())
    [ids] = data.draw(ragged_ids(config, max_texts=1))
    weights = living_weights(config, data.draw(st.integers(0, 2**32)))
    found = intermediates(np.array(ids), reference.nest(weights, np.float64), config)
    expected = torch_intermediates(torch_model(config, weights), np.array([ids]))
    assert [name for name in found if not name.endswith(NOT_IN_TORCH)] == sorted(expected, key=list(found).index)
    for name, array in expected.items():
        assert_close(found[name], array[0], rel=1e-12, what=name)
    sizes = {"T": len(ids), "D": config.hidden_size, "F": config.intermediate_size, "H": config.num_attention_heads}
    for name, array in found.items():
        assert array.shape == tuple(sizes[letter] for letter in dimensions(name).split())
    assert ("normalize" in found) == config.normalize


def test_intermediates_of_a_padded_batch_are_those_of_its_texts(encoder: SentenceEncoder) -> None:
    weights = reference.nest(encoder.weights, np.float64)
    texts = [[2, 9, 8, 7, 3], [2, 30, 3]]
    ids = np.array([texts[0], texts[1] + [0, 0]])
    batch = intermediates(ids, weights, encoder.config, mask=np.array([[True] * 5, [True] * 3 + [False] * 2]))
    for row, text in enumerate(texts):
        T = len(text)
        for name, array in intermediates(np.array(text), weights, encoder.config).items():
            letters = dimensions(name)
            found = batch[name] if name == "embeddings.position_embeddings" else batch[name][row]
            found = found[:, :T, :T] if letters == "H T T" else found[:T] if letters[0] == "T" else found
            assert_close(found, array, rel=1e-12, what=name)


def test_intermediates_own_their_memory_and_keep_what_overflows(encoder: SentenceEncoder) -> None:
    weights = dict(encoder.weights)
    weights["embeddings.LayerNorm.weight"] = weights["embeddings.LayerNorm.weight"] * np.float32(1e30)
    found = intermediates(np.array([2, 3]), reference.nest(weights), encoder.config)
    assert all(array.base is None and array.flags.c_contiguous for array in found.values())
    assert np.isfinite(found["embeddings.LayerNorm"]).all()
    assert not np.isfinite(found["encoder.layer.0.attention.self.scores"]).all()


@given(st.data())
@settings(max_examples=25)
def test_the_engine_leaves_what_the_reference_computes(data: st.DataObject) -> None:
    config = data.draw(small_configs())
    [ids] = data.draw(ragged_ids(config, max_texts=1))
    weights = {
        name: array.astype(np.float32)
        for name, array in living_weights(config, data.draw(st.integers(0, 2**32))).items()
    }
    engine = Float32Engine(config, weights.items(), 2)
    found = engine.intermediates(ids)
    truth = intermediates(np.array(ids), reference.nest(weights, np.float64), config)
    rounded = intermediates(np.array(ids), reference.nest(weights, np.float32), config)
    assert list(found) == [name for name in truth if not name.endswith(FUSED)]
    for name, array in found.items():
        assert array.dtype == np.float32
        # a LayerNorm over two values may lose any number of digits: as many as the reference loses in float32
        lost = float(np.abs(rounded[name] - truth[name]).max() / np.abs(truth[name]).max())
        assert_close(array, truth[name], rel=2e-6 + 10 * lost, what=name)
    assert_same_bits(found["normalize" if config.normalize else "pooling"], engine.encode([ids])[0])


@pytest.mark.filterwarnings("ignore::minilm_np.errors.TruncationWarning")
@pytest.mark.parametrize("text", [TEXT, "", "long " * 100])
def test_the_engines_last_array_is_the_vector(encoder: SentenceEncoder, engine: SentenceEncoder, text: str) -> None:
    for owner in (encoder, engine):  # whatever the backend of the encoder that is asked
        found = trace(owner, text, backend="numba")
        assert_same_bits(found["normalize"], engine.encode(text))
        assert "numba" in found.versions and found.backend == "numba"


def test_traces_in_many_threads_are_the_same(engine: SentenceEncoder) -> None:
    expected, found = trace(engine, TEXT, backend="numba"), []
    threads = [threading.Thread(target=lambda: found.append(trace(engine, TEXT, backend="numba"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_trace_ends_in_the_vector(encoder: SentenceEncoder, dtype: str) -> None:
    found = trace(encoder, TEXT, dtype=dtype)
    assert {str(array.dtype) for array in found.values()} == {dtype} == {found.dtype}
    assert_close(list(found.values())[-1], encoder.encode(TEXT), rel=1e-6)
    assert found.dimensions["encoder.layer.2.attention.self.probs"] == "H T T"
    assert next(iter(found)) == "embeddings.word_embeddings" and len(found) == 42
    assert found.model == "random weights" and set(found.versions) == {"minilm-np", "numpy", "tokenizers"}


def test_several_texts_give_a_trace_each_as_if_alone(encoder: SentenceEncoder) -> None:
    texts = [TEXT, "", "another one"]
    assert trace(encoder, texts) == [trace(encoder, text) for text in texts]
    assert trace(encoder, []) == []
    assert trace(encoder, TEXT) != trace(encoder, TEXT, dtype="float64")


@pytest.mark.weights
def test_the_published_models_trace_is_torchs(published: SentenceEncoder, model_folder: Path) -> None:
    found = trace(published, TEXT)
    assert found.tokens == ["[CLS]", "naive", "cafe", ",", "東", "京", "[UNK]", "[SEP]", "x", "[SEP]"]
    assert [TEXT[start:stop] for start, stop in found.offsets] == ["", *"Naïve café , 東 京 👍 [SEP] x".split(), ""]
    truth = torch_intermediates(torch_model(published.config, published.weights), np.array([found.ids]))
    for name, array in truth.items():
        assert_close(found[name], array[0], rel=5e-6, what=name)
    engine = trace(published, TEXT, backend="numba")
    for name, array in engine.items():
        assert_close(array, found[name], rel=5e-6, what=name)
    assert_same_bits(engine["normalize"], SentenceEncoder(model_folder).encode(TEXT))
    assert found.model == str(model_folder)


@pytest.mark.weights
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tracing_256_tokens_takes_less_than_a_gigabyte(model_folder: Path, tmp_path: Path, dtype: str) -> None:
    code = (
        "import sys; from minilm_np import SentenceEncoder; from minilm_np.trace import Trace, trace\n"
        "from tests.support.memory import peak_memory\n"
        "encoder = SentenceEncoder(sys.argv[1], backend='numpy')\n"
        "found = trace(encoder, 'the quick brown fox ' * 100, dtype=sys.argv[3])\n"
        "assert len(found.ids) == 256\n"
        "found.save(sys.argv[2]); assert Trace.load(sys.argv[2]) == found\n"
        "print(peak_memory())"
    )
    child = [sys.executable, "-c", code, str(model_folder), str(tmp_path / "file.safetensors"), dtype]
    assert int(subprocess.run(child, capture_output=True, text=True, check=True).stdout) < 1e9


# ---------------------------------------------------------------------------------------------- tokens and characters


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "",
        "UPPER e\u0301 x\u0323",
        "a " * 500,
        "word " * 5000,
        "?!" * 5000 + "end",
        "\u4e2d" * 9000,
        " " * 9000 + "end",
    ],
)
def test_offsets_are_of_the_text_even_where_it_is_read_in_pieces(encoder: SentenceEncoder, text: str) -> None:
    tokens, ids, offsets, truncated = tokens_of(encoder.tokenizer, text)
    tokenized = encoder.tokenizer([text])
    assert (ids, truncated) == (tokenized.ids[0], tokenized.truncated[0])
    assert len(tokens) == len(offsets) == len(ids)
    assert (tokens[0], tokens[-1], offsets[0], offsets[-1]) == ("[CLS]", "[SEP]", (0, 0), (0, 0))
    # the same as those of the whole text, which the library tokenizes at once
    whole = encoder.tokenizer._tokenizer.encode(text, add_special_tokens=False)
    assert offsets[1:-1] == whole.offsets[: len(ids) - 2]
    for token, (start, stop) in zip(tokens[1:-1], offsets[1:-1], strict=True):
        assert start < stop <= len(text)
        if token != "[UNK]" and text.isascii():
            assert text[start:stop].lower() == token.removeprefix("##").lower()


# ------------------------------------------------------------------------------------------------------------ the file


@pytest.fixture
def saved(encoder: SentenceEncoder, tmp_path: Path) -> Path:
    trace(encoder, TEXT, dtype="float64").save(tmp_path / "file.safetensors")
    return tmp_path / "file.safetensors"


@pytest.mark.parametrize("text", [TEXT, "", "long " * 100, 'quotes " \\ \x00 \u2028'])
def test_a_trace_reads_back_equal(engine: SentenceEncoder, tmp_path: Path, text: str) -> None:
    for options in ({}, {"dtype": "float64"}, {"backend": "numba"}):
        found = trace(engine, text, **options)
        found.save(tmp_path / "file.safetensors")
        read = Trace.load(tmp_path / "file.safetensors")
        assert read == found and list(read) == list(found) and read.offsets == found.offsets
    assert [path.name for path in tmp_path.iterdir()] == ["file.safetensors"]


def test_the_file_is_an_ordinary_one(encoder: SentenceEncoder, saved: Path) -> None:
    arrays = load_file(saved)
    for name, array in trace(encoder, TEXT, dtype="float64").items():
        assert_same_bits(arrays[name], array)
    with safe_open(saved, "numpy") as file:
        facts = json.loads(file.metadata()["minilm_np"])
    assert facts["text"] == TEXT and facts["format"] == "minilm_np trace 1"
    os.umask(umask := os.umask(0))
    assert saved.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_file_is_replaced_whole_or_not_at_all(encoder: SentenceEncoder, saved: Path) -> None:
    before = saved.read_bytes()
    found = trace(encoder, "x")
    found.arrays["pooling"] = np.array(["no number"])
    with pytest.raises(OSError, match="cannot be written: Unknown dtype"):  # the format has no text
        found.save(saved)
    assert saved.read_bytes() == before and list(saved.parent.iterdir()) == [saved]
    with pytest.raises(FileNotFoundError):
        found.save(saved.parent / "none" / "file.safetensors")


def test_many_threads_may_write_one_file(encoder: SentenceEncoder, tmp_path: Path) -> None:
    traces = [trace(encoder, text) for text in ("a", "another")]
    path = tmp_path / "file.safetensors"
    (tmp_path / f".{path.name}.{os.getpid()}.tmp").touch()  # of a killed process that had this one's number
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda i: traces[i % 2].save(path), range(80)):
            assert Trace.load(path) in traces
    path.unlink()
    assert [left.suffix for left in tmp_path.iterdir()] == [".tmp"]  # it is not ours to remove


REFUSALS: list[tuple[str, Callable[[dict[str, Any], dict[str, Any]], object], str]] = [
    ("format", lambda a, f: f.update(format="other"), "expected the format 'minilm_np trace 1' .* found 'other'"),
    ("no tokens", lambda a, f: f.pop("tokens"), "metadata 'tokens': expected a list, found None"),
    ("truncated", lambda a, f: f.update(truncated="no"), "metadata 'truncated': expected a bool, found 'no'"),
    ("token", lambda a, f: f["tokens"].pop(), "expected as many tokens and offsets as ids, 17, found 16 and 17"),
    ("offset", lambda a, f: f["offsets"].__setitem__(3, [1]), r"'offsets': expected pairs of integers, found \[1\]"),
    ("missing", lambda a, f: a.pop("pooling"), "'pooling': .* found in the metadata's dimensions only"),
    ("more", lambda a, f: a.update(x=np.zeros(1)), "'x': .* found in the file only"),
    ("dtype", lambda a, f: a.update(pooling=np.zeros(96, np.float32)), "expected dtype float64, found float32"),
    ("rank", lambda a, f: a.update(pooling=np.zeros((96, 1))), r"'pooling': expected the dimensions 'D'.*\(96, 1\)"),
    (
        "size",
        lambda a, f: a.update(pooling=np.zeros(95)),
        r"'pooling': expected the dimensions 'D', where D is 96; found",
    ),
]


@pytest.mark.parametrize(("change", "message"), [pytest.param(*rest, id=name) for name, *rest in REFUSALS])
def test_a_broken_trace_is_refused(saved: Path, change: Any, message: str) -> None:
    arrays = load_file(saved)
    with safe_open(saved, "numpy") as file:
        facts = json.loads(file.metadata()["minilm_np"])
    change(arrays, facts)
    save_file(arrays, saved, {"minilm_np": json.dumps(facts)})
    with pytest.raises(InputValueError, match=message) as refusal:
        Trace.load(saved)
    assert str(saved) in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a whole .safetensors file"),
        (b"\x02" + bytes(7) + b"{}", "expected the format"),
        (b"\x02" + bytes(7) + b"[]", "expected a whole .safetensors file"),
        (b"\xff" * 20, "expected a whole .safetensors file"),
        ((b'{"__metadata__":{"minilm_np":"{"}}', "metadata 'minilm_np': expected JSON")),
        ((b'{"__metadata__":{"minilm_np":"3"}}', "expected the format")),
        ((b'{"x":{"dtype":"BF16","shape":[0],"data_offsets":[0,0]}}', "expected a whole .safetensors file")),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(len(content).to_bytes(8, "little") + content if content[:1] == b"{" else content)
    with pytest.raises(InputValueError, match=message):
        Trace.load(path)
    with pytest.raises(FileNotFoundError):
        Trace.load(tmp_path / "none")


def test_a_trace_that_was_cut_short_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-1])
    with pytest.raises(InputValueError, match=r"file.safetensors: expected a whole .safetensors file"):
        Trace.load(saved)


def test_arguments_are_checked(encoder: SentenceEncoder) -> None:
    with pytest.raises(InputValueError, match="dtype: expected one of 'float32', 'float64', found 'float16'"):
        trace(encoder, "x", dtype="float16")
    with pytest.raises(InputValueError, match="backend 'numba' computes in float32 only, found 'float64'"):
        trace(encoder, "x", dtype="float64", backend="numba")
    with pytest.raises(InputValueError, match="backend: expected one of 'numba', 'numpy', found 'torch'"):
        trace(encoder, "x", backend="torch")
    with pytest.raises(InputTypeError, match="text 1: expected a str, found int"):
        trace(encoder, ["x", 3])  # type: ignore[list-item]
    with pytest.raises(InputValueError, match="text 0: the lone surrogate"):
        trace(encoder, "\ud800")


# --------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, encoder: SentenceEncoder) -> Callable[..., int]:
    """`minilm-np trace ...` of the random model."""
    from minilm_np.cli import trace as module

    monkeypatch.setattr(module, "SentenceEncoder", lambda *args, **options: encoder)
    monkeypatch.setattr(cli, "COMMANDS", (module,))
    return lambda *arguments: cli.main(["trace", *map(str, arguments)])


def test_the_table_has_a_line_an_array(
    command: Any, encoder: SentenceEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(TEXT * 9) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 160
    found = trace(encoder, TEXT * 9)
    names = [line.split()[0] for line in lines[-len(found) :]]
    assert names == list(found)
    array = found["encoder.layer.1.attention.self.query"].astype(np.float64)
    [line] = [line.split() for line in lines if line.startswith("encoder.layer.1.attention.self.query")]
    assert line[1:6] == ["T", "D", str(array.shape[0]), "x", "96"]
    expected = [array.mean(), array.std(), array.min(), array.max(), np.linalg.norm(array), *array.ravel()[:3]]
    assert [float(number) for number in line[6:]] == pytest.approx(expected, abs=6e-5, rel=6e-2)
    assert "(the text was cut there)" in lines[1] and "naïve" not in "".join(lines)


def test_the_table_of_a_large_model_fits_too(
    monkeypatch: pytest.MonkeyPatch, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from minilm_np.cli import trace as module

    sizes = {**vars(SentenceEncoder.random().config), "num_hidden_layers": 11, "max_seq_length": 512}
    config = ModelConfig(**sizes | {"max_position_embeddings": 512, "hidden_size": 16, "num_attention_heads": 16})
    large = SentenceEncoder.random(config, backend="numpy")
    monkeypatch.setattr(module, "SentenceEncoder", lambda *args, **options: large)
    assert command("a " * 600) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("16 x 512 x 512" in line for line in lines)
    assert max(map(len, lines)) <= 160


def test_json_has_the_same(command: Any, encoder: SentenceEncoder, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(TEXT, "--format", "json", "--dtype", "float64") == 0
    facts = json.loads(capsys.readouterr().out)
    found = trace(encoder, TEXT, dtype="float64")
    assert facts["text"] == TEXT and facts["truncated"] is False and facts["dtype"] == "float64"
    assert [(t["token"], t["id"], tuple(t["offsets"])) for t in facts["tokens"]] == list(
        zip(found.tokens, found.ids, found.offsets, strict=True)
    )
    for entry, (name, array) in zip(facts["intermediates"], found.items(), strict=True):
        assert (entry["name"], entry["shape"]) == (name, list(array.shape))
        assert entry["first"] == array.ravel()[:3].tolist()
        assert entry["norm"] == pytest.approx(np.linalg.norm(array))


def test_json_has_no_infinity(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from minilm_np.cli import trace as module

    state = SentenceEncoder.random(backend="numpy").__getstate__()
    state["weights"] = {name: array.copy() for name, array in state["weights"].items()}
    state["weights"]["embeddings.LayerNorm.weight"] *= np.float32(1e30)
    overflowing = SentenceEncoder.__new__(SentenceEncoder)
    overflowing.__setstate__(state)
    monkeypatch.setattr(module, "SentenceEncoder", lambda *args, **options: overflowing)
    assert command("x", "--format", "json") == 0

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    facts = json.loads(capsys.readouterr().out, parse_constant=refuse)
    by_name = {entry["name"]: entry for entry in facts["intermediates"]}
    assert by_name["encoder.layer.0.attention.self.probs"]["mean"] is None
    assert command("x") == 0
    assert "nan" in capsys.readouterr().out


def test_the_command_saves(command: Any, encoder: SentenceEncoder, tmp_path: Path) -> None:
    assert command(TEXT, "--save", tmp_path / "file.safetensors") == 0
    assert Trace.load(tmp_path / "file.safetensors") == trace(encoder, TEXT)


def test_the_command_says_what_is_wrong(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(TEXT, "--save", tmp_path) == 1
    assert "it is a folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        command(TEXT, "--dtype", "float64", "--backend", "numba")
    assert usage.value.code == 2
    assert "--dtype float64 needs --backend numpy" in capsys.readouterr().err
