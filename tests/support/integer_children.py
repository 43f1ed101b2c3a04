"""A program that tests of the integer engine start as a child: `-m tests.support.integer_children [code]`.

It prints one line of JSON: the target, where the kernels come from, and the SHA-256 of vectors for both compute types.
With `code`, whose kernels this process must compile, it also prints which instructions the assembly has.
"""

import functools
import hashlib
import json
import re
import sys
from dataclasses import replace

import numpy as np

from minilm_np import ModelConfig
from minilm_np.engine.integer import loading
from minilm_np.engine.integer.engine import IntegerEngine
from minilm_np.engine.integer.reference import COMPUTE_TYPES
from minilm_np.engine.runtime import entries
from minilm_np.engine.runtime.integer_target import integer_target
from minilm_np.model_files.random_weights import random_weights

CONFIG = ModelConfig(
    vocab_size=100, max_position_embeddings=160, hidden_size=144, num_hidden_layers=2, num_attention_heads=6,
    intermediate_size=300, max_seq_length=160,
)  # fmt: skip
MPNET = replace(
    CONFIG, max_position_embeddings=162, type_vocab_size=0, hidden_act="gelu_new", model_type="mpnet", padding_idx=1,
    relative_attention_num_buckets=32,
)  # fmt: skip
LENGTHS = (1, 2, 15, 16, 17, 31, 33, 64, 130, 160)
INSTRUCTIONS = ("tdpbuud", "tdpbusd", "vpdpwssd", "vpdpbusd", "vpmaddwd", "pmaddwd", "zmm", "ymm", "fmaf")


def digests() -> dict[str, str]:
    """The SHA-256 of vectors, for each model, compute type and number of threads."""
    generator = np.random.default_rng(1)
    texts = [generator.integers(0, CONFIG.vocab_size, length).tolist() for length in LENGTHS]
    found = {}
    for config in (CONFIG, MPNET):
        weights = random_weights(config, 2)
        for compute_type in COMPUTE_TYPES:
            for threads in (1, 2):
                engine = IntegerEngine(config, weights.items(), threads, compute_type=compute_type)
                together = engine.encode(texts)
                alone = np.concatenate([engine.encode([text]) for text in texts])
                assert np.array_equal(together, alone)
                name = f"{config.model_type}, {compute_type}, {threads}"
                found[name] = hashlib.sha256(together.tobytes()).hexdigest()
    assert loading.load(8) is loading.load(8)
    return found


def code() -> dict[str, object]:
    """The digests, of kernels that this process compiles, and the instructions of each entry."""
    from minilm_np.engine.integer.kernels import entry  # and Numba: the assembly of cached code is not available

    entry.compile_entry = functools.cache(entry.compile_entry)  # both widths share two entries
    found = digests()
    instructions = {}
    for name in entry.NAMES:
        assembly = re.sub(r"%([yz]mm)\d+", r"\1", entry.compile_entry(name).library.get_asm_str())
        instructions[name] = sorted(set(re.findall(r"\b[a-z][a-z0-9]+\b", assembly)).intersection(INSTRUCTIONS))
    return {"sha256": found, "instructions": instructions}


def main() -> None:
    facts = code() if sys.argv[1:] == ["code"] else {"sha256": digests()}
    origin = entries.origin("minilm_np.engine.integer.kernels")
    print(json.dumps(facts | {"target": integer_target(), "origin": origin}))


if __name__ == "__main__":
    main()
