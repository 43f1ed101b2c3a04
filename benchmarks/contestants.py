"""The engines that `benchmarks.peers` compares, each from text to vector, and the process that runs one of them.

    python -m benchmarks.contestants KEY FOLDER MODEL THREADS {serve,first}

`benchmarks.peers` starts the process and sends requests through the pipe. `padded.py` says what the peers share;
sentence-transformers does all of that itself.

Imports stand where they are used, because the time from process start to first vector is measured, too.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.padded import Hidden, Padded

FIRST_TEXT = "This is an example sentence"
READY = "ready"  # what the process writes first, or the reason why it cannot run
NAMES = ("input_ids", "attention_mask", "token_type_ids")

Encode = Callable[[Sequence[str]], Any]
Load = Callable[[str, str, int], Encode]  # folder, model, threads -> texts to vectors


@dataclass(frozen=True)
class Engine:
    """What is installed."""

    name: str
    module: str  # that a contestant imports
    distributions: tuple[str, ...]  # that it needs, without their own requirements; () for this project


@dataclass(frozen=True)
class Contestant:
    """One variant of one engine with one type of numbers. For each workload, the fastest variant counts."""

    engine: Engine
    numbers: str  # that its dense layers multiply: float32, bf16, int16, int8
    variant: str
    export: str | None  # the name in `benchmarks.exports` of the file that it loads; None for the published folder
    load: Load
    starts: bool = True  # whether its start is measured, too

    @property
    def name(self) -> str:
        """The engine and its numbers: one row of the tables."""
        return f"{self.engine.name} {self.numbers}"


# ---- this project, sentence-transformers, torch ----------------------------------------------------------------------


def minilm_np(folder: str, model: str, threads: int, compute_type: str) -> Encode:
    """Load the model by its name, as users do: its files are verified. The peers load a folder."""
    from minilm_np import SentenceEncoder

    return SentenceEncoder(threads=threads, compute_type=compute_type).encode


def sentence_transformers(folder: str, model: str, threads: int) -> Encode:
    import torch

    torch.set_num_threads(threads)
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(folder, device="cpu")
    return lambda texts: encoder.encode(list(texts), show_progress_bar=False)


def torch_bf16(folder: str, model: str, threads: int, mode: str) -> Encode:
    """mode: "eager": all weights are bf16; "autocast": torch chooses what to compute in bf16; "compiled": eager, with
    torch.compile.
    """
    import torch
    from transformers import BertModel

    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise Unsupported("torch multiplies no bf16 on this processor")
    torch.set_num_threads(threads)
    dtype = torch.float32 if mode == "autocast" else torch.bfloat16
    bert = BertModel.from_pretrained(folder, attn_implementation="sdpa", add_pooling_layer=False, dtype=dtype)
    run = bert.train(False)
    if mode == "compiled":
        run = torch.compile(run, dynamic=True)

    def hidden(ids: list[list[int]], token_ids: Any, mask: Any) -> Any:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
            # without padding no mask: attention is then faster
            attention_mask = None if mask.all() else torch.from_numpy(mask.astype("int64"))
            states = run(input_ids=torch.from_numpy(token_ids), attention_mask=attention_mask).last_hidden_state
            return states.float().numpy()

    return Padded(folder, lambda: hidden, 1)


# ---- ONNX Runtime ----------------------------------------------------------------------------------------------------


def onnxruntime(folder: str, model: str, threads: int, parallel: bool = False) -> Encode:
    """parallel: one batch per thread instead of one batch on all threads."""
    session = _onnx_session(model, 1 if parallel else threads)
    return Padded(folder, lambda: session, threads if parallel else 1)


def _onnx_session(model: str, threads: int) -> Hidden:
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


# ---- OpenVINO --------------------------------------------------------------------------------------------------------


def openvino(folder: str, model: str, threads: int, numbers: str, hint: str) -> Encode:
    """By default OpenVINO computes in bf16 where the processor has it; float32 needs a hint."""
    import openvino

    settings = {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": threads}
    if numbers == "float32":
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if numbers == "bf16" and precision != "bf16":
        raise Unsupported(f"by default OpenVINO computes in {precision} on this processor")
    requests = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") if hint == "THROUGHPUT" else 1
    return Padded(folder, lambda: _openvino_request(compiled), requests)


def _openvino_request(compiled: Any) -> Hidden:
    import numpy as np

    request = compiled.create_infer_request()

    def hidden(ids: list[list[int]], token_ids: Any, mask: Any) -> Any:
        arrays = (token_ids, mask.astype(np.int64), np.zeros(mask.shape, np.int64))
        request.infer(dict(zip(NAMES, arrays, strict=True)), share_inputs=True)
        return request.get_output_tensor(0).data

    return hidden


# ---- CTranslate2 -----------------------------------------------------------------------------------------------------


def ctranslate2(folder: str, model: str, threads: int, compute_type: str, parallel: bool = False) -> Encode:
    import ctranslate2
    import numpy as np

    possible = ctranslate2.get_supported_compute_types("cpu")
    if compute_type not in possible:
        raise Unsupported(f"this CTranslate2 computes on this processor in {', '.join(sorted(possible))} only")
    encoder = ctranslate2.Encoder(
        model, device="cpu", compute_type=compute_type,
        inter_threads=threads if parallel else 1, intra_threads=1 if parallel else threads,
    )  # fmt: skip
    float32 = ctranslate2.DataType.float32

    def hidden(ids: list[list[int]], token_ids: Any, mask: Any) -> Any:
        states = encoder.forward_batch(ids).last_hidden_state
        return np.asarray(states if states.dtype == float32 else states.to(float32))

    return Padded(folder, lambda: hidden, threads if parallel else 1)


# ---- the list --------------------------------------------------------------------------------------------------------


class Unsupported(Exception):  # noqa: N818 (its message is the reason that is printed)
    """This machine cannot run the contestant as intended."""


OURS = Engine("minilm_np", "minilm_np", ())
_SBERT = Engine("sentence-transformers", "sentence_transformers", ("sentence-transformers",))
_TORCH = Engine("torch", "transformers", ("torch", "transformers"))
_ONNX = Engine("ONNX Runtime", "onnxruntime", ("onnxruntime", "tokenizers"))
_OPENVINO = Engine("OpenVINO", "openvino", ("openvino", "tokenizers"))
_CTRANSLATE2 = Engine("CTranslate2", "ctranslate2", ("ctranslate2", "tokenizers"))


def _ours(numbers: str) -> Contestant:
    return Contestant(OURS, numbers, "numba", None, partial(minilm_np, compute_type=numbers))


def _torch(mode: str) -> Contestant:
    return Contestant(_TORCH, "bf16", mode, None, partial(torch_bf16, mode=mode), starts=mode == "eager")


def _onnx(numbers: str, export: str, variant: str, parallel: bool = False) -> Contestant:
    load, variant = partial(onnxruntime, parallel=parallel), variant + ", one batch per thread" * parallel
    return Contestant(_ONNX, numbers, variant, export, load, starts=not parallel)


def _openvino(numbers: str, export: str, hint: str) -> Contestant:
    load = partial(openvino, numbers=numbers, hint=hint)
    return Contestant(_OPENVINO, numbers, f"{hint.lower()} hint", export, load, starts=hint == "LATENCY")


def _ctranslate2(numbers: str, export: str, compute_type: str, parallel: bool = False) -> Contestant:
    load = partial(ctranslate2, compute_type=compute_type, parallel=parallel)
    variant = "one worker per thread" if parallel else "one worker"
    return Contestant(_CTRANSLATE2, numbers, variant, export, load, starts=not parallel)


CONTESTANTS = {
    "minilm_np-float32": _ours("float32"),
    "minilm_np-int16": _ours("int16"),
    "minilm_np-int8": _ours("int8"),
    "sentence-transformers": Contestant(_SBERT, "float32", "torch", None, sentence_transformers),
    "torch-bf16": _torch("eager"),
    "torch-bf16-autocast": _torch("autocast"),
    "torch-bf16-compiled": _torch("compiled"),
    "onnxruntime-float32": _onnx("float32", "onnx", "raw export"),
    "onnxruntime-float32-fused": _onnx("float32", "onnx-fused", "fused"),
    "onnxruntime-float32-parallel": _onnx("float32", "onnx-fused", "fused", parallel=True),
    "onnxruntime-int8": _onnx("int8", "onnx-int8-channels", "raw export"),
    "onnxruntime-int8-fused": _onnx("int8", "onnx-fused-int8", "fused"),
    "onnxruntime-int8-parallel": _onnx("int8", "onnx-fused-int8", "fused", parallel=True),
    "openvino-float32": _openvino("float32", "openvino", "LATENCY"),
    "openvino-float32-throughput": _openvino("float32", "openvino", "THROUGHPUT"),
    "openvino-bf16": _openvino("bf16", "openvino", "LATENCY"),
    "openvino-bf16-throughput": _openvino("bf16", "openvino", "THROUGHPUT"),
    "openvino-int8": _openvino("int8", "openvino-int8", "LATENCY"),
    "openvino-int8-throughput": _openvino("int8", "openvino-int8", "THROUGHPUT"),
    "ctranslate2-float32": _ctranslate2("float32", "ctranslate2", "float32"),
    "ctranslate2-float32-parallel": _ctranslate2("float32", "ctranslate2", "float32", parallel=True),
    "ctranslate2-bf16": _ctranslate2("bf16", "ctranslate2-bfloat16", "bfloat16"),
    "ctranslate2-int16": _ctranslate2("int16", "ctranslate2-int16", "int16"),
    "ctranslate2-int8": _ctranslate2("int8", "ctranslate2-int8", "int8"),
    "ctranslate2-int8-parallel": _ctranslate2("int8", "ctranslate2-int8", "int8", parallel=True),
}


# ---- the process -----------------------------------------------------------------------------------------------------


def main(key: str, folder: str, model: str, threads: str, task: str) -> None:
    from benchmarks.common import peak_memory, take_stdout

    pipe = take_stdout()
    try:
        encode = CONTESTANTS[key].load(folder, model, int(threads))
    except Unsupported as reason:
        pipe.write(json.dumps(str(reason)) + "\n")
        return
    if task == "first":
        pipe.write(f"{float(encode([FIRST_TEXT])[0][0])}\n")
        pipe.write(f"{peak_memory()}\n")
        return
    pipe.write(f"{json.dumps(READY)}\n")
    served = Served(encode, int(threads))
    for line in sys.stdin:
        request = json.loads(line)
        pipe.write(json.dumps(getattr(served, request.pop("task"))(**request)) + "\n")


class Served:
    """The requests that `benchmarks.peers` sends; each method answers one of them."""

    def __init__(self, encode: Encode, threads: int) -> None:
        self._encode, self._threads = encode, threads
        self._texts: dict[str, list[str]] = {}
        self._calls: dict[str, Callable[[], Any]] = {}

    def set_texts(self, path: str) -> bool:
        """Read the texts of each workload from a JSON file."""
        self._texts = json.loads(Path(path).read_text(encoding="utf-8"))
        self._calls = {name: partial(self._encode, texts) for name, texts in self._texts.items()}
        return True

    def tune(self, workload: str, seconds: float) -> float:
        """Choose the batch size for a workload. Returns the median time of a block of calls."""
        import statistics

        texts = self._texts[workload]
        if isinstance(self._encode, Padded) and len(texts) > 1:
            self._calls[workload] = partial(self._encode, texts, size=self._encode.tune(texts))
        self._calls[workload]()
        return statistics.median(self.time(workload, seconds))

    def vectors(self, workload: str, path: str) -> bool:
        """Write the vectors of a workload to a .npy file."""
        import numpy as np

        np.save(path, self._calls[workload]())
        return True

    def time(self, workload: str, seconds: float) -> list[float]:
        """Return the time of each call in a block of calls."""
        return block(self._calls[workload], seconds)

    def sustained(self, workload: str, seconds: float) -> dict[str, float]:
        """Return the median time of a call, and the rate of independent fma in turn with it, in FLOP per second."""
        from benchmarks.peak import in_turn, turn_of_fma

        duration, rate = in_turn(self._calls[workload], turn_of_fma(self._threads), seconds)
        return {"seconds": duration, "peak_flops": rate}


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
