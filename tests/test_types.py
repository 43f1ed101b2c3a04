"""What a type checker says of the public calls: mypy runs over a file of `reveal_type`s."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="needs mypy (pip install mypy)")

VECTOR, MATRIX = "ndarray[tuple[int], float32]", "ndarray[tuple[int, int], float32]"

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
    "weights": "dict[str, ndarray[tuple[Any, ...], float32]]",
    "threads": "int | None",
    'fingerprint(["a"])': "str",
}


def shortened(revealed: str) -> str:
    revealed = re.sub(r"tuple\[int, int, str, .*?, int, fallback=[\w.]*Window\]", "Window", revealed)
    revealed = re.sub(r"numpy\.dtype\[numpy\.floating\[[\w.]*_32Bit\]\]", "float32", revealed)
    revealed = re.sub(r"numpy\.dtype\[numpy\.float32\]", "float32", revealed)
    revealed = re.sub(r"numpy\.dtype\[numpy\.integer\[Any\]\]", "integer", revealed)
    return re.sub(r"[\w.]+\.(?=\w+)", "", revealed)


def test_calls_have_the_types_that_their_arguments_say(tmp_path: Path) -> None:
    calls = list(ENCODE)
    lines = ["from minilm_np import SentenceEncoder", "encoder = SentenceEncoder()"]
    lines += [f"reveal_type(encoder.{call})" for call in calls]
    (tmp_path / "calls.py").write_text("\n".join(lines))
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file=", "calls.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = {
        calls[int(line) - 3]: shortened(revealed)
        for line, revealed in re.findall(r'calls\.py:(\d+): note: Revealed type is "(.*)"', done.stdout)
    }
    assert "error" not in done.stdout, done.stdout
    assert found == ENCODE
