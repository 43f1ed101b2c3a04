"""What a type checker says of the public calls: mypy runs over a file of `reveal_type`s."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="needs mypy (pip install mypy)")

VECTOR, MATRIX = "ndarray[tuple[int], float32]", "ndarray[tuple[int, int], float32]"


def array(dtype: str) -> str:
    return f"ndarray[tuple[Any, ...], {dtype}]"


PREAMBLE = """\
import numpy as np
from numpy.typing import NDArray
from minilm_np import ModelConfig, SentenceEncoder, util
class Own(SentenceEncoder): ...
encoder = SentenceEncoder()
vectors: NDArray[np.float32] = np.zeros((2, 3), np.float32)
precision: str = "int8"
"""

# call of `encoder` -> its type, with NumPy's long names shortened
ENCODE = {
    'encode("a")': VECTOR,
    'encode(["a"])': MATRIX,
    'encode(("a", "b"), batch_size=8, normalize_embeddings=True)': MATRIX,
    'encode("a", output_value="token_embeddings")': MATRIX,
    'encode(["a"], output_value="token_embeddings")': f"list[{MATRIX}]",
    'encode("a", output_value=None)': "dict[str, Any]",
    'encode(["a"], output_value=None)': "list[dict[str, Any]]",
    'encode(["a"], convert_to_numpy=False)': f"list[{VECTOR}]",
    'encode("a", convert_to_tensor=True)': "Tensor",
    'encode(["a"], convert_to_tensor=True)': "Tensor",
    'encode(["a"], precision="int8")': "ndarray[tuple[Any, ...], integer]",
    'encode_query("a", truncate_dim=64)': VECTOR,
    'encode_document(["a"], show_progress_bar=False)': MATRIX,
    'encode_iter(["a"])': f"Iterator[{VECTOR}]",
    'encode_long("a")': VECTOR,
    'encode_long(["a"], pooling="max")': MATRIX,
    'encode_long("a", pooling=None)': "list[Window]",
    'encode_long(["a"], pooling=None)': "list[list[Window]]",
    'trace("a")': "Trace",
    'trace(["a"], dtype="float64")': "list[Trace]",
    'tokenize(["a"])["input_ids"]': array("int64"),
    'preprocess(["a"])["n_tokens"]': "list[int]",
    "similarity(vectors, vectors)": array("Any"),
    "similarity_pairwise([1.0], [2.0])": array("Any"),
    "weights": f"dict[str, {array('float32')}]",
    "settings": "ModelSettings",
    "use": "ModelSettings",
    "threads": "int | None",
    'fingerprint(["a"])': "str",
}

CALLS = {f"encoder.{call}": kind for call, kind in ENCODE.items()} | {
    "SentenceEncoder.random()": "SentenceEncoder",
    "Own.random(seed=1, backend='numpy')": "Own",
    "Own.from_weights(encoder.config, encoder.tokenizer, encoder.weights)": "Own",
    "util.semantic_search(vectors, [[1.0, 2.0, 3.0]])": "list[list[Hit]]",
    "util.semantic_search(vectors, vectors)[0][0]['score']": "float",
    "util.paraphrase_mining(encoder, ['a', 'b'])": "list[list[float | int]]",
    "util.community_detection(vectors)": "list[list[int]]",
    "util.cos_sim(vectors, vectors)": array("Any"),
    "util.normalize_embeddings(vectors)": array("float32"),
    "util.normalize_embeddings([1.0, 2.0])": array("Any"),
    "util.truncate_embeddings(vectors, 2)": array("float32"),
    "util.quantize_embeddings(vectors, 'float32')": array("float32"),
    "util.quantize_embeddings(vectors, 'int8')": array("int8"),
    "util.quantize_embeddings(vectors, precision='ubinary')": array("uint8"),
    "util.quantize_embeddings(vectors, precision)": array("Any"),
    "util.quantize_embeddings([vectors, vectors], precision)": f"{array('Any')} | list[{array('Any')}]",
}


def shortened(revealed: str) -> str:
    for long, short in (
        (r"tuple\[int, int, str, .*?, int, fallback=[\w.]*Window\]", "Window"),
        (r"TypedDict\('?([\w.]+)'?, \{.*?\}\)", r"\1"),
        (r"numpy\.dtype\[numpy\.floating\[[\w.]*_32Bit\]\]", "float32"),
        (r"numpy\.dtype\[numpy\.signedinteger\[[\w.]*_64Bit\]\]", "int64"),
        (r"numpy\.dtype\[numpy\.signedinteger\[[\w.]*_8Bit\]\]", "int8"),
        (r"numpy\.dtype\[numpy\.unsignedinteger\[[\w.]*_8Bit\]\]", "uint8"),
        (r"numpy\.dtype\[(?:numpy\.)?(\w+)(?:\[Any\])?\]", r"\1"),
    ):
        revealed = re.sub(long, short, revealed)
    return re.sub(r"[\w.]+\.(?=\w+)", "", revealed)


def test_calls_have_the_types_that_their_arguments_say(tmp_path: Path) -> None:
    calls = list(CALLS)
    (tmp_path / "calls.py").write_text(PREAMBLE + "\n".join(f"reveal_type({call})" for call in calls))
    first = PREAMBLE.count("\n") + 1
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file=", "calls.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = {
        calls[int(line) - first]: shortened(revealed)
        for line, revealed in re.findall(r'calls\.py:(\d+): note: Revealed type is "(.*)"', done.stdout)
    }
    assert "error" not in done.stdout, done.stdout
    assert found == CALLS
