"""Loading a model that is on this machine opens no connection."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONNECTS_NOWHERE = """
import os, sys
FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "subprocess.Popen")
def look(event, arguments):
    if event in FORBIDDEN:
        os.write(2, f"{event} {arguments}".encode())
        os._exit(3)
sys.addaudithook(look)
from minilm_np import HubError, SentenceEncoder
"""


def run_without_network(code: str, **environment: str) -> str:
    """Run code in a process that ends as soon as it connects, looks a name up or starts another process."""
    done = subprocess.run(
        [sys.executable, "-c", CONNECTS_NOWHERE + code], capture_output=True, text=True, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_connection_would_be_seen() -> None:
    with pytest.raises(AssertionError, match="socket"):
        run_without_network("import socket; socket.create_connection(('127.0.0.1', 9))")


@pytest.mark.weights
def test_a_model_on_this_machine_is_loaded_without_a_connection(model_folder: Path) -> None:
    code = "print(SentenceEncoder({!r}, backend='numpy').encode('a').shape)"
    for name in (str(model_folder), "all-MiniLM-L6-v2"):
        assert run_without_network(code.format(name)) == "(384,)\n"


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ("local_files_only=True", {}, "nothing fetched: local_files_only (--offline) is set"),
        ("", {"HF_HUB_OFFLINE": "1"}, "nothing fetched: HF_HUB_OFFLINE is set"),
    ],
)
def test_offline_is_honoured(arguments: str, environment: dict[str, str], message: str, tmp_path: Path) -> None:
    code = f"""
try:
    SentenceEncoder("sentence-transformers/not-here", {arguments})
except HubError as error:
    print(error)
"""
    empty = {"HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path), "MINILM_NP_CACHE": str(tmp_path)}
    assert message in run_without_network(code, **empty, **environment)
