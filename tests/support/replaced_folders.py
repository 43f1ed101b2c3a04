"""A process that saves models to one folder over and over, while this one loads them."""

import dataclasses
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from minilm_np import SentenceEncoder
from minilm_np.model_files.random_weights import SMALL

SAVING = """
import select, sys
from minilm_np import _files
from tests.support.replaced_folders import models
path, alternating, can_exchange = sys.argv[1], sys.argv[2] == "True", sys.argv[3] == "True"
if not can_exchange:
    _files._exchange = lambda first, second: False
saved, which = 0, models()[: 2 if alternating else 1]
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    which[saved % len(which)].save_pretrained(path)
    saved += 1
print(saved)
"""


def models() -> list[SentenceEncoder]:
    """Two models of the same shapes, whose files fit each other, but not the vectors of a mixture of both."""
    other = dataclasses.replace(SMALL, pooling_mode="cls", normalize=False)
    return [SentenceEncoder.random(SMALL, 1, backend="numpy"), SentenceEncoder.random(other, 2, backend="numpy")]


def load_while_saving(path: Path, seconds: float, *, alternating: bool, can_exchange: bool) -> tuple[int, Counter[str]]:
    """Load a folder for some seconds, while another process saves one model or two alternating models to it.

    can_exchange: False: the saving process replaces the folder as on a system that cannot exchange folders.
    Returns the number of saves, and what the loads gave: "model 0", "model 1", "wrong", or the text of an error.
    """
    expected = [model.encode("a text").tobytes() for model in models()]
    models()[0].save_pretrained(path)
    arguments = [sys.executable, "-c", SAVING, str(path), str(alternating), str(can_exchange)]
    found: Counter[str] = Counter()
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                vector = SentenceEncoder(path, backend="numpy").encode("a text").tobytes()
            except Exception as error:
                found[f"{type(error).__name__}: {error}"] += 1
            else:
                found[f"model {expected.index(vector)}" if vector in expected else "wrong"] += 1
        saves, _ = child.communicate("stop\n", timeout=60)
    assert child.returncode == 0
    return int(saves), found
