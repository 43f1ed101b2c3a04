"""The six workloads of the comparisons, and the arithmetic that each of them needs."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.texts import mostly_short, short_sentences, text
from minilm_np.model_files.config import ModelConfig


@dataclass(frozen=True)
class Workload:
    title: str
    texts: list[str]


def workloads(quick: bool = False) -> dict[str, Workload]:
    """Return the workloads by a short name. quick: fewer texts, for a smoke test."""
    batch, short, mixed = (2, 20, 8) if quick else (32, 1000, 400)
    generator = random.Random(0)
    found = {
        f"text_{length}": Workload(f"1 text of {length} tokens", [text(length, generator)]) for length in (7, 121, 256)
    }
    found["batch"] = Workload(f"{batch} texts of 121 tokens", [text(121, generator) for _ in range(batch)])
    found["short"] = Workload(f"{short:,} short sentences", short_sentences(short))
    found["mixed"] = Workload(f"{mixed} texts of 5 to 256 tokens", mostly_short(mixed))
    return found


def flops(lengths: Sequence[int], config: ModelConfig) -> int:
    """Return the multiplications and additions for texts of these numbers of tokens, without padding.

    The dense products of a layer have 4 D * D weights (query, key, value, output) and 2 D * F; each weight takes one
    multiplication and one addition per token. Its scores and its context take T * D of each per token. So for T tokens:

        2 L (4 D D + 2 D F) T + 4 L D T T        all-MiniLM-L6-v2: 21.23e6 T + 9216 T T
    """
    L, D, F = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    return sum(2 * L * (4 * D * D + 2 * D * F) * T + 4 * L * D * T * T for T in lengths)
