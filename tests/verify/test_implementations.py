"""Other implementations as verify opens them: torch, ONNX graphs, files of vectors, servers on loopback."""

import http.server
import io
import json
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from minilm_np import InputTypeError, InputValueError, SentenceEncoder, reference
from minilm_np.errors import ImplementationError, MissingExtraError
from minilm_np.model_files.config import POOLING_MODES
from minilm_np.model_files.hub import ModelFolder
from minilm_np.model_files.random_weights import SMALL
from minilm_np.verify import built_in_texts, open_implementation
from minilm_np.verify.endpoint import BATCH, Endpoint
from tests.support.compare import assert_close
from tests.support.models import torch_model

TEXTS = ["hello world", "", "a much longer text than the others, with [SEP] in it"]


@pytest.fixture(scope="module")
def small() -> SentenceEncoder:
    return SentenceEncoder.random(backend="numpy")


def recorded(encoder: SentenceEncoder, text: str) -> dict[str, np.ndarray]:
    steps: dict[str, np.ndarray] = {}

    def keep(name: str, x: np.ndarray) -> np.ndarray:
        steps[name] = x
        return x

    ids = np.array(encoder.tokenizer([text]).ids[0], np.int64)
    reference.forward(ids, reference.nest(encoder.weights), encoder.config, record=keep)
    return steps


# --- torch


@pytest.mark.parametrize("source", ["sentence-transformers", "transformers"])
@pytest.mark.parametrize("pooling_mode", POOLING_MODES)
def test_torch_computes_a_random_encoder(source: str, pooling_mode: str) -> None:
    config = replace(SMALL, pooling_mode=pooling_mode, normalize=pooling_mode in ("mean", "cls"), num_hidden_layers=2)
    encoder = SentenceEncoder.random(config, seed=3, backend="numpy")
    other = open_implementation(source, encoder)
    assert_close(other.vectors(TEXTS), encoder.encode(TEXTS), rel=3e-6)
    intermediates = other.intermediates(TEXTS)
    assert intermediates is not None
    for text, steps in zip(TEXTS, intermediates, strict=True):
        expected = recorded(encoder, text)
        assert set(expected) - set(steps) == {f"encoder.layer.{n}.attention.self.scores" for n in range(2)}
        assert set(steps) <= set(expected)
        for name, array in steps.items():
            assert_close(array, expected[name], rel=1e-5, what=name)
    assert other.vectors([]).shape == (0, config.hidden_size)


@pytest.mark.weights
@pytest.mark.parametrize("source", ["sentence-transformers", "transformers"])
def test_torch_loads_the_published_folder_with_its_own_tokenizer(source: str, published: SentenceEncoder) -> None:
    texts = [text for _, text in built_in_texts(published)]
    other = open_implementation(source, published)
    assert other.token_ids(texts) == published.tokenizer(texts).ids
    assert_close(other.vectors(TEXTS), published.encode(TEXTS), abs_=5e-7)
    intermediates = other.intermediates(TEXTS[:1])
    assert intermediates is not None
    assert len(intermediates[0]) == 4 + 6 * 11 + 2


@pytest.mark.weights
def test_a_package_that_is_missing_is_named(published: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"needs sentence_transformers, .*pip install 'minilm-np\[verify\]'"):
        open_implementation("sentence-transformers", published)


def test_a_folder_that_torch_cannot_load_is_named(small: SentenceEncoder, tmp_path: Path) -> None:
    broken = SentenceEncoder.random(backend="numpy")
    broken.folder = ModelFolder(None, tmp_path, "a folder", False)
    with pytest.raises(ImplementationError, match=f"transformers cannot load {tmp_path}"):
        open_implementation("transformers", broken)


# --- ONNX


def export(
    encoder: SentenceEncoder, path: Path, *, pooled: bool = False, outputs: list[str] | None = None,
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids"), tokens: int | None = None,
    dtype: str = "int64",
) -> Path:  # fmt: skip
    """The encoder as an ONNX graph, by torch's exporter."""
    import torch

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = torch_model(encoder.config, dict(encoder.weights))

        def forward(self, *arrays: Any) -> Any:
            bert = self.bert(**dict(zip(inputs, arrays, strict=True)))
            hidden = bert.last_hidden_state
            if not pooled:
                return (hidden,) if outputs is None or len(outputs) == 1 else (hidden, hidden[:, 0] * 2.0)
            mask = arrays[1][..., None].to(hidden.dtype)
            return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)

    names = outputs or ["sentence_embedding" if pooled else "last_hidden_state"]
    axes = {} if tokens else {name: {0: "texts", 1: "tokens"} for name in inputs}
    ones = torch.ones(1 if tokens else 2, tokens or 8, dtype=getattr(torch, dtype))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Graph().eval(), tuple(torch.zeros_like(ones) if name == "token_type_ids" else ones for name in inputs),
            str(path), input_names=list(inputs), output_names=names, dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip
    return path


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"pooled": True},
        {"pooled": True, "outputs": ["vector"]},
        {"outputs": ["some_output"]},
        {"outputs": ["last_hidden_state", "pooler_output"]},
        {"inputs": ("input_ids", "attention_mask")},
        {"dtype": "int32"},
    ],
    ids=["hidden", "pooled", "pooled-unnamed", "hidden-unnamed", "pooler", "two-inputs", "int32"],
)
def test_an_onnx_graph_gives_the_vectors(small: SentenceEncoder, tmp_path: Path, kind: dict[str, Any]) -> None:
    other = open_implementation(str(export(small, tmp_path / "model.onnx", **kind)), small)
    assert_close(other.vectors(TEXTS), small.encode(TEXTS), rel=3e-6)
    assert other.token_ids(TEXTS) is None
    assert other.vectors([]).shape == (0, small.config.hidden_size)
    assert other.name.startswith("model.onnx (onnxruntime ")


def test_an_onnx_graph_of_fixed_size_gets_padding_and_cut_texts(small: SentenceEncoder, tmp_path: Path) -> None:
    other = open_implementation(str(export(small, tmp_path / "model.onnx", tokens=16)), small)
    assert_close(other.vectors(TEXTS[:2]), small.encode(TEXTS[:2]), rel=3e-6)
    cut = SentenceEncoder.random(replace(SMALL, max_seq_length=16), backend="numpy")
    with pytest.warns(UserWarning, match="takes 16 tokens: longer texts are cut for it"):
        assert_close(other.vectors(TEXTS[2:]), cut.encode(TEXTS[2:], on_truncation="ignore"), rel=3e-6)


def test_an_onnx_graph_shows_its_intermediates(small: SentenceEncoder, tmp_path: Path) -> None:
    other = open_implementation(str(export(small, tmp_path / "model.onnx")), small)
    intermediates = other.intermediates(TEXTS)
    assert intermediates is not None
    for text, steps in zip(TEXTS, intermediates, strict=True):
        expected = recorded(small, text)
        assert set(expected) - set(steps) == {"pooling", "normalize"}
        for name, array in steps.items():
            assert_close(array, expected[name], rel=1e-5, what=name)


def write_graph(path: Path, inputs: dict[str, tuple[int, list[Any]]], outputs: dict[str, list[int]]) -> Path:
    """A graph of constants: what its inputs are called and its outputs look like."""
    import onnx
    from onnx import helper

    nodes = [helper.make_node("ConstantOfShape", [f"{name}_shape"], [name]) for name in outputs]
    shapes = [helper.make_tensor(f"{name}_shape", onnx.TensorProto.INT64, [len(s)], s) for name, s in outputs.items()]
    graph = helper.make_graph(
        nodes, "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in outputs.items()], shapes,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


INT64, FLOAT = 7, 1


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({"pixels": (INT64, ["B", "T"])}, {"hidden": [1, 2, 96]}, "expected the inputs input_ids, .* found pixels"),
        ({"input_ids": (FLOAT, ["B", "T"])}, {"hidden": [1, 2, 96]}, r"expected int64 or int32 .* tensor\(float\)"),
        ({"input_ids": (INT64, ["T"])}, {"hidden": [1, 2, 96]}, r"input_ids: expected .* of shape \['T'\]"),
        ({"input_ids": (INT64, ["B", "T"])}, {"a": [1, 96], "b": [1, 96]}, r"which output .*found a \(rank 2\), b"),
        ({"input_ids": (INT64, ["B", "T"])}, {"pooler_output": [1, 96]}, r"which output .*found \(none\)"),
    ],
)
def test_an_onnx_graph_of_something_else_is_refused(
    small: SentenceEncoder, tmp_path: Path, inputs: Any, outputs: Any, message: str
) -> None:
    path = write_graph(tmp_path / "model.onnx", inputs, outputs)
    with pytest.raises(ImplementationError, match=message):
        open_implementation(str(path), small)


def test_what_is_no_onnx_graph_is_refused(small: SentenceEncoder, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(ImplementationError, match=r"model.onnx: onnxruntime cannot load it: .*[Pp]rotobuf"):
        open_implementation(str(path), small)


# --- files


def test_a_file_of_vectors_gives_them_back(small: SentenceEncoder, tmp_path: Path) -> None:
    vectors = small.encode(TEXTS)
    np.save(tmp_path / "v.npy", vectors.astype(np.float64))
    save_file({"v": vectors}, tmp_path / "plain.safetensors")
    save_file({"v": vectors}, tmp_path / "texts.safetensors", {"texts": json.dumps(TEXTS)})
    lines = [json.dumps({"text": text, "embedding": v.tolist()}) for text, v in zip(TEXTS, vectors, strict=True)]
    (tmp_path / "v.jsonl").write_text("\n".join(lines) + "\n\n")
    for name in ("v.npy", "plain.safetensors", "texts.safetensors", "v.jsonl"):
        other = open_implementation(str(tmp_path / name), small)
        assert np.array_equal(other.vectors(TEXTS), vectors)
        assert other.texts == (TEXTS if name in ("texts.safetensors", "v.jsonl") else None)
        assert other.intermediates(TEXTS) is None and other.token_ids(TEXTS) is None
        if other.texts:
            assert np.array_equal(other.vectors(TEXTS[::-1]), vectors[::-1])
            with pytest.raises(InputValueError, match=f"{name} has no vector of 1 texts, the first 'other'"):
                other.vectors(["other", TEXTS[0]])
        else:
            with pytest.raises(InputValueError, match=f"{name} has 3 vectors and no texts, and was asked for 1"):
                other.vectors(["one"])


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def line(**item: Any) -> bytes:
    return json.dumps(item).encode() + b"\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.npy", b"no", "not an .npy file of numbers"),
        ("v.npy", npy(np.zeros((2, 3), np.float32))[:-1], "not an .npy file of numbers"),
        ("v.npy", npy(np.array([None, {}], object)), "not an .npy file of numbers: Object arrays"),
        ("v.npy", npy(np.zeros(3)), r"expected floats of shape \(texts, numbers\), found float64 of shape \(3,\)"),
        ("v.npy", npy(np.zeros((2, 3), np.int8)), "expected floats .* found int8"),
        ("v.jsonl", line(text="a", embedding=[1.0]) + b"{", "line 2: not JSON"),
        ("v.jsonl", b"\xff\n", "line 1: not UTF-8: expected"),
        ("v.jsonl", b"", "v.jsonl: expected at least one vector of at least one number, found none"),
        ("v.npy", npy(np.zeros((2, 0))), "v.npy: expected at least one vector of at least one number"),
        ("v.jsonl", line(text="a", embedding=[]), r"line 1: expected a list of numbers, found \[\]"),
        ("v.jsonl", b"[" * 100000 + b"\n", "line 1: not JSON"),
        ("v.jsonl", line(embedding=[1.0]), 'line 1: expected an object with "text" and "embedding"'),
        ("v.jsonl", line(text=3, embedding=[1.0]), "line 1: expected an object"),
        ("v.jsonl", b"[1]\n", r"line 1: expected an object .*, found \[1\]$"),
        ("v.jsonl", line(text="a", embedding="AAAA"), "line 1: expected a list of numbers, found AAAA"),
        ("v.jsonl", line(text="a", embedding=[1, "2"]), "line 1: expected a list of numbers"),
        ("v.jsonl", line(text="a", embedding=[1, True]), "line 1: expected a list of numbers"),
        ("v.jsonl", line(text="a", embedding=[1, 10**400]), "line 1: a number is too large"),
        (
            "v.jsonl",
            line(text="a", embedding=[1, 2]) + line(text="b", embedding=[1]),
            "line 2: the vector has 1 numbers, the first one has 2",
        ),
        ("v.safetensors", b"no", "not a .safetensors file"),
        (
            "v.safetensors",
            b"\x40" + bytes(7) + b'{"v":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]}}'.ljust(64) + bytes(4),
            "not a .safetensors file that can be read|found bfloat16",
        ),
    ],
)
def test_a_file_of_something_else_is_refused(
    small: SentenceEncoder, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputValueError, match=message):
        open_implementation(str(tmp_path / name), small)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        (("a", "b"), None, r"expected one tensor, \(texts, numbers\), found 2"),
        (("a",), {"texts": "{}"}, "metadata's `texts`: expected a JSON list of strings"),
        (("a",), {"texts": "no JSON"}, "metadata's `texts`"),
        (("a",), {"texts": "[1, 2]"}, "metadata's `texts`"),
        (("a",), {"texts": '["one"]'}, "it names 1 texts, and has 2 vectors"),
    ],
)
def test_a_safetensors_file_of_something_else_is_refused(
    small: SentenceEncoder, tmp_path: Path, tensors: tuple[str, ...], metadata: Any, message: str
) -> None:
    save_file({name: np.zeros((2, 3), np.float32) for name in tensors}, tmp_path / "v.safetensors", metadata)
    with pytest.raises(InputValueError, match=message):
        open_implementation(str(tmp_path / "v.safetensors"), small)


def test_null_is_a_number_that_is_none(small: SentenceEncoder, tmp_path: Path) -> None:
    (tmp_path / "v.jsonl").write_bytes(line(text="a", embedding=[1.0, None, 2]))
    found = open_implementation(str(tmp_path / "v.jsonl"), small).vectors(["a"])
    assert np.array_equal(found, [[1.0, np.nan, 2.0]], equal_nan=True)


# --- servers


@contextmanager
def serving(answer: Any) -> Iterator[str]:
    """A server on loopback; `answer(path, body)` gives a status, headers and the answer's bytes, in pieces."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, pieces = answer(self.path, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for piece in pieces:
                    self.wfile.write(piece)
            except OSError:
                pass  # who asked has gone

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_servers_of_both_kinds_give_the_vectors_of_a_model(small: SentenceEncoder) -> None:
    texts = [f"text {number}" for number in range(BATCH + 5)] + TEXTS
    sizes: list[int] = []

    def answer(path: str, body: dict[str, Any]) -> Any:
        if path == "/embed":
            assert set(body) == {"inputs", "truncate"} and body["truncate"] is True
            sizes.append(len(body["inputs"]))
            return 200, {}, [json.dumps(small.encode(body["inputs"]).tolist()).encode()]
        assert path == "/v1/embeddings?model=mine" and body["model"] == "mine" and body["encoding_format"] == "float"
        rows = enumerate(small.encode(body["input"]).tolist())
        data = [{"object": "embedding", "index": index, "embedding": row} for index, row in rows]
        return 200, {}, [json.dumps({"object": "list", "data": data[::-1]}).encode()]

    with serving(answer) as url:
        for path in ("/embed", "/v1/embeddings?model=mine"):
            other = open_implementation(url + path, small)
            assert_close(other.vectors(texts), small.encode(texts), rel=2e-6, what=path)
            assert other.vectors([]).shape == (0, small.config.hidden_size)
            assert other.texts is None and other.intermediates(texts) is None and other.token_ids(texts) is None
    assert sizes == [BATCH, 8]


@pytest.mark.parametrize(
    ("status", "headers", "answer", "message"),
    [
        (500, {}, b'{"error": "out of memory"}', 'it answered 500 Internal Server Error: {"error": "out of memory"}'),
        (302, {"Location": "/elsewhere"}, b"", "it answered 302 Found"),
        (200, {}, b"<html>", "its answer is not JSON"),
        (200, {}, b"[" * 4096, "its answer is not JSON"),
        (200, {}, b"\xff", "its answer is not JSON"),
        (200, {}, b"[[1, 2], [3, 4]]", r"expected 1 vectors, found \[\[1, 2\], \[3, 4\]\]"),
        (200, {}, b'{"data": []}', "expected 1 vectors, found"),
        (200, {}, b'[["1"]]', "vector 0: expected a list of numbers"),
        (200, {}, b"[" + b" " * 5000 + b"[1]]", "its answer is longer than 4096 bytes"),
        (200, {"Content-Length": "100"}, b"[[1]]", "its answer ends 95 bytes too early"),
    ],
)
def test_a_server_that_answers_something_else_is_refused(
    small: SentenceEncoder, status: int, headers: Any, answer: bytes, message: str
) -> None:
    with (
        serving(lambda path, body: (status, headers, [answer])) as url,
        pytest.raises(ImplementationError, match=message),
    ):
        Endpoint(f"{url}/embed", small, largest=4096).vectors(["a"])


@pytest.mark.parametrize(
    "answer",
    [{}, [], {"data": [1]}, {"data": [{"index": 1, "embedding": [1]}]}, {"data": [{"index": [], "embedding": [1]}]}],
)
def test_an_openai_server_that_answers_something_else_is_refused(small: SentenceEncoder, answer: Any) -> None:
    with (
        serving(lambda path, body: (200, {}, [json.dumps(answer).encode()])) as url,
        pytest.raises(ImplementationError, match="expected 1 vectors, found"),
    ):
        open_implementation(f"{url}/v1/embeddings", small).vectors(["a"])


def test_a_server_that_drips_is_left_in_time(small: SentenceEncoder) -> None:
    def drip() -> Iterator[bytes]:
        for _ in range(100):
            yield b" "
            time.sleep(0.05)

    with serving(lambda path, body: (200, {}, drip())) as url:
        started = time.monotonic()
        with pytest.raises(ImplementationError, match=r"no whole answer within 0\.3 seconds"):
            Endpoint(f"{url}/embed", small, seconds=0.3).vectors(["a"])
        assert time.monotonic() - started < 4


def test_a_server_that_is_not_there_is_named(small: SentenceEncoder) -> None:
    with serving(lambda path, body: (200, {}, [])) as url:
        pass
    with pytest.raises(ImplementationError, match=f"{url}/embed: it cannot be asked: .*refused: is the server running"):
        open_implementation(f"{url}/embed", small).vectors(["a"])


def test_vectors_of_different_lengths_over_requests_are_refused(small: SentenceEncoder) -> None:
    def answer(path: str, body: dict[str, Any]) -> Any:
        size = 2 if len(body["inputs"]) == BATCH else 3
        return 200, {}, [json.dumps([[1.0] * size] * len(body["inputs"])).encode()]

    with serving(answer) as url, pytest.raises(ImplementationError, match="vectors of different lengths"):
        open_implementation(f"{url}/embed", small).vectors(["a"] * (BATCH + 1))


# --- what is no source


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nonsense", "source: expected sentence-transformers, .* found 'nonsense'"),
        ("model.bin", "source: expected sentence-transformers"),
        ("there/is/no.npy", r"source \(--against, --vectors\): there is no file there/is/no.npy: check its path"),
        ("no.onnx", "there is no file no.onnx"),
        ("http://localhost:1/v2/rerank", "expected a URL that ends in /v1/embeddings or /embed"),
        ("https:///embed", "expected a URL that ends in"),
        ("http://me:secret@localhost/embed", "expected none with a user's name or a password"),
    ],
)
def test_what_is_no_source_is_refused(small: SentenceEncoder, source: str, message: str) -> None:
    with pytest.raises(InputValueError, match=message) as raised:
        open_implementation(source, small)
    assert "secret" not in str(raised.value)


def test_a_source_of_another_type_is_refused(small: SentenceEncoder) -> None:
    with pytest.raises(InputTypeError, match="source: expected a str, found int"):
        open_implementation(3, small)  # type: ignore[arg-type]
