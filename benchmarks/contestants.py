"""The engines that `benchmarks.peers` compares, each from text to vector, and the process that runs one of them.

    python -m benchmarks.contestants KEY FOLDER MODEL THREADS {serve,first}

`benchmarks.peers` starts the process and sends requests through the pipe. Every peer gets what helps it: the same
`tokenizers` library on as many threads, texts sorted by length, batches of 32 padded to their longest text, the mean
and the norm in a few NumPy calls. sentence-transformers does all of this itself.

Imports stand where they are used, because the time from process start to first vector is measured, too.
"""

import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

BATCH = 32
FIRST_TEXT = "This is an example sentence"

Encode = Callable[[Sequence[str]], Any]


@dataclass(frozen=True)
class Contestant:
    """One variant of one engine. For each workload, the fastest variant of an engine counts."""

    engine: str
    variant: str
    module: str  # the module that it imports
    distributions: tuple[str, ...]  # the distributions that it needs, without their own requirements
    export: str | None  # the name in `benchmarks.exports` of the file that it loads; None for the published folder
    load: Callable[[str, str, int], Encode]  # folder, model, threads -> texts to vectors
    starts: bool = True  # whether its start is measured, too


def minilm_np(folder: str, model: str, threads: int) -> Encode:
    from minilm_np import SentenceEncoder

    return SentenceEncoder(folder, threads=threads).encode


def sentence_transformers(folder: str, model: str, threads: int) -> Encode:
    import torch

    torch.set_num_threads(threads)
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(folder, device="cpu")
    return lambda texts: encoder.encode(list(texts), batch_size=BATCH, show_progress_bar=False)


def onnxruntime(folder: str, model: str, threads: int) -> Encode:
    session = _onnx_session(model, threads)
    return _padded(folder, lambda: session, 1)


def onnxruntime_parallel(folder: str, model: str, threads: int) -> Encode:
    session = _onnx_session(model, 1)
    return _padded(folder, lambda: session, threads)


def _onnx_session(model: str, threads: int) -> "Hidden":
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    dtype = np.int32 if "int32" in inputs[0].type else np.int64

    def hidden(ids: list[list[int]], token_ids: Any, mask: Any) -> Any:
        arrays = (token_ids.astype(dtype), mask.astype(dtype), np.zeros(mask.shape, dtype))
        return session.run(None, dict(zip(NAMES, arrays, strict=True)))[0]

    return hidden


def openvino_latency(folder: str, model: str, threads: int) -> Encode:
    compiled = _openvino_model(folder, model, threads, "LATENCY")
    return _padded(folder, lambda: _openvino_request(compiled), 1)


def openvino_throughput(folder: str, model: str, threads: int) -> Encode:
    compiled = _openvino_model(folder, model, threads, "THROUGHPUT")
    requests = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    return _padded(folder, lambda: _openvino_request(compiled), requests)


def _openvino_model(folder: str, model: str, threads: int, hint: str) -> Any:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": threads}
    return openvino.Core().compile_model(model, "CPU", settings)


def _openvino_request(compiled: Any) -> "Hidden":
    import numpy as np

    request = compiled.create_infer_request()

    def hidden(ids: list[list[int]], token_ids: Any, mask: Any) -> Any:
        arrays = (token_ids, mask.astype(np.int64), np.zeros(mask.shape, np.int64))
        request.infer(dict(zip(NAMES, arrays, strict=True)), share_inputs=True)
        return request.get_output_tensor(0).data

    return hidden


def ctranslate2(folder: str, model: str, threads: int) -> Encode:
    hidden = _ctranslate2_encoder(model, 1, threads)
    return _padded(folder, lambda: hidden, 1)


def ctranslate2_parallel(folder: str, model: str, threads: int) -> Encode:
    hidden = _ctranslate2_encoder(model, threads, 1)
    return _padded(folder, lambda: hidden, threads)


def _ctranslate2_encoder(model: str, workers: int, threads: int) -> "Hidden":
    import ctranslate2
    import numpy as np

    encoder = ctranslate2.Encoder(
        model, device="cpu", compute_type="float32", inter_threads=workers, intra_threads=threads
    )
    return lambda ids, token_ids, mask: np.asarray(encoder.forward_batch(ids).last_hidden_state)


CONTESTANTS = {
    "minilm_np": Contestant("minilm_np", "numba", "minilm_np", (), None, minilm_np),
    "sentence-transformers": Contestant(
        "sentence-transformers", "torch", "sentence_transformers", ("sentence-transformers",), None,
        sentence_transformers,
    ),
    "onnxruntime-raw": Contestant(
        "ONNX Runtime", "raw export", "onnxruntime", ("onnxruntime", "tokenizers"), "onnx", onnxruntime
    ),
    "onnxruntime-fused": Contestant(
        "ONNX Runtime", "fused", "onnxruntime", ("onnxruntime", "tokenizers"), "onnx-fused", onnxruntime
    ),
    "onnxruntime-parallel": Contestant(
        "ONNX Runtime", "fused, one batch per thread", "onnxruntime", ("onnxruntime", "tokenizers"), "onnx-fused",
        onnxruntime_parallel, starts=False,
    ),
    "openvino-latency": Contestant(
        "OpenVINO", "latency hint", "openvino", ("openvino", "tokenizers"), "openvino", openvino_latency
    ),
    "openvino-throughput": Contestant(
        "OpenVINO", "throughput hint", "openvino", ("openvino", "tokenizers"), "openvino", openvino_throughput,
        starts=False,
    ),
    "ctranslate2": Contestant(
        "CTranslate2", "one worker", "ctranslate2", ("ctranslate2", "tokenizers"), "ctranslate2", ctranslate2
    ),
    "ctranslate2-parallel": Contestant(
        "CTranslate2", "one worker per thread", "ctranslate2", ("ctranslate2", "tokenizers"), "ctranslate2",
        ctranslate2_parallel, starts=False,
    ),
}  # fmt: skip


# ---- what the peers share --------------------------------------------------------------------------------------------

NAMES = ("input_ids", "attention_mask", "token_type_ids")

Hidden = Callable[[list[list[int]], Any, Any], Any]  # ragged ids, the same padded (B, T), mask (B, T) -> (B, T, D)


def _padded(folder: str, make_hidden: Callable[[], Hidden], callers: int) -> Encode:
    """Return a function from texts to vectors that runs padded batches, `callers` of them at a time."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    local = threading.local()
    executor: Any = None

    def encode_batch(ids: list[list[int]]) -> Any:
        if not hasattr(local, "hidden"):
            local.hidden = make_hidden()
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        mask = np.arange(lengths[0]) < lengths[:, None]  # (B, T), the longest text comes first
        token_ids = np.zeros(mask.shape, np.int64)
        token_ids[mask] = np.fromiter(itertools.chain.from_iterable(ids), np.int64, lengths.sum())
        hidden = local.hidden(ids, token_ids, mask)  # (B, T, D)
        means = (mask[:, None].astype(np.float32) @ hidden)[:, 0] / lengths[:, None].astype(np.float32)  # (B, D)
        return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)

    def encode(texts: Sequence[str]) -> Any:
        nonlocal executor
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]
        rows = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        size = min(BATCH, -(-len(rows) // callers))
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        if len(batches) == 1 or callers == 1:
            found = map(encode_batch, ([ids[row] for row in batch] for batch in batches))
        else:
            if executor is None:
                from concurrent.futures import ThreadPoolExecutor

                executor = ThreadPoolExecutor(callers)
            found = executor.map(encode_batch, [[ids[row] for row in batch] for batch in batches])
        vectors: Any = None
        for batch, part in zip(batches, found, strict=True):
            if vectors is None:
                vectors = np.empty((len(ids), part.shape[1]), np.float32)
            vectors[batch] = part
        return vectors

    return encode


# ---- the process -----------------------------------------------------------------------------------------------------


def main(key: str, folder: str, model: str, threads: str, task: str) -> None:
    from benchmarks.common import peak_memory, take_stdout

    pipe = take_stdout()
    encode = CONTESTANTS[key].load(folder, model, int(threads))
    if task == "first":
        pipe.write(f"{float(encode([FIRST_TEXT])[0][0])}\n")
        pipe.write(f"{peak_memory()}\n")
    else:
        pipe.write("true\n")  # "ready"
        for line in sys.stdin:
            pipe.write(json.dumps(_serve(encode, **json.loads(line))) + "\n")


def _serve(encode: Encode, quick: bool, workload: str, seconds: float = 0.0, path: str = "") -> Any:
    """Write the vectors of a workload to a file, or time a block of calls."""
    import numpy as np

    from benchmarks.workloads import workloads

    texts = workloads(quick)[workload].texts
    if path:
        np.save(path, encode(texts))
        return True
    return block(lambda: encode(texts), seconds)


def block(call: Callable[[], Any], seconds: float) -> list[float]:
    """Return the seconds of each call in a block of about `seconds`; of more than three, the first is not counted."""
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times[1:] if len(times) > 3 else times


if __name__ == "__main__":
    main(*sys.argv[1:])
