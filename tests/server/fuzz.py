"""Requests that schemathesis makes from /openapi.json, valid and invalid ones: `python -m tests.server.fuzz`.

Each response must have a status and a body that the document names; valid requests must be accepted, invalid ones
refused, and none may be answered with a 500.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from minilm_np import CrossEncoder, ModelConfig, SentenceEncoder
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from tests.support.server import running

KEY = "key"
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 404, 405, 413, 415, 422]
"""  # without 413, too many texts would have to be another error


def fuzz(*options: str) -> tuple[int, str]:
    """Run schemathesis on a server of two small models: its exit code and what it prints."""
    config = ModelConfig(
        vocab_size=len(CHARACTER_VOCABULARY), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=4096, max_seq_length=4096,  # no text is too long
    )  # fmt: skip
    models = SentenceEncoder.random(config, backend="numpy"), CrossEncoder.random(config, backend="numpy")
    with tempfile.TemporaryDirectory() as folder, running(*models, api_key=KEY) as url:
        (Path(folder) / "config.toml").write_text(CONFIG)
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", f"{folder}/config.toml", "run"]
        command += [f"{url}/openapi.json", "--no-color"]
        command += ["--header", f"Authorization: Bearer {KEY}", *options]
        ran = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=folder
        )  # it writes a cache there
    return ran.returncode, ran.stdout + ran.stderr


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-examples", default="1000", help="per path (default: %(default)s)")
    parser.add_argument("--seed", default="1", help="(default: %(default)s)")
    chosen = parser.parse_args()
    code, printed = fuzz("--max-examples", chosen.max_examples, "--seed", chosen.seed)
    print(printed)
    sys.exit(code)
