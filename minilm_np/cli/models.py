"""`minilm-np fetch` and `minilm-np info`: get a model, say what is there."""

import argparse
import importlib.metadata
import json
import math
import platform
from typing import Any

import minilm_np
from minilm_np.cli.options import add_command, add_model_options, load
from minilm_np.model_files import hub
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.manifest import DEFAULT_MODEL, matches_manifest


def add(commands: Any) -> None:
    fetch = add_command(
        commands, "fetch", _fetch, "download a model and check it", "minilm-np fetch --to ./all-MiniLM-L6-v2"
    )
    fetch.add_argument("name", nargs="?", default=DEFAULT_MODEL, help="the model (default: %(default)s)")
    fetch.add_argument("--to", metavar="DIR", help="the folder to put it in (default: a cache folder)")

    info = add_command(commands, "info", _info, "say what model, from where, and which versions", "minilm-np info")
    add_model_options(info)
    info.add_argument("--format", choices=("text", "json"), default="text", help="(default: %(default)s)")


def _fetch(options: argparse.Namespace) -> int:
    folder = hub.fetch(options.name, to=options.to)
    print(folder.path)
    return 0


def _info(options: argparse.Namespace) -> int:
    encoder = load(options)
    config, folder = encoder.config, encoder.folder
    assert folder is not None  # it was loaded from somewhere
    published = folder.name if folder.verified else matches_manifest(folder.path)
    facts: dict[str, Any] = {
        "model": published or folder.name or "(no name)",
        "path": str(folder.path),
        "source": folder.source,
        "verified": published is not None,
        "parameters": sum(map(math.prod, parameter_shapes(config).values())),
        "dimension": encoder.get_sentence_embedding_dimension(),
        "max_seq_length": encoder.max_seq_length,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "feed_forward": config.intermediate_size,
        "vocabulary": config.vocab_size,
        "pooling": config.pooling_mode,
        "normalize": config.normalize,
        "backend": encoder.backend,
        "threads": encoder.threads,
        # two machines that print the same fingerprint make the same vectors, bit for bit
        "fingerprint": encoder.fingerprint() if encoder.backend == "numba" else None,
        "versions": {"minilm-np": minilm_np.__version__, "python": platform.python_version()}
        | {name: _version(name) for name in ("numpy", "numba", "safetensors", "tokenizers")},
        "machine": f"{platform.system()} {platform.machine()}",
    }
    if options.format == "json":
        print(json.dumps(facts, indent=2))
        return 0
    for name, fact in facts.items():
        print(f"{name.replace('_', ' '):16}{_for_people(name, fact)}")
    return 0


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # the NumPy backend runs without Numba
        return "(not installed)"


def _for_people(name: str, fact: Any) -> str:
    if name == "verified":
        return "yes, every file has the published SHA-256" if fact else "no: no manifest has these bytes"
    if isinstance(fact, bool):
        return "yes" if fact else "no"
    if fact is None:
        return "(the NumPy backend decides neither its threads nor its last bits)"
    if isinstance(fact, dict):
        return ", ".join(f"{key} {value}" for key, value in fact.items())
    return f"{fact:,}" if isinstance(fact, int) else str(fact)
