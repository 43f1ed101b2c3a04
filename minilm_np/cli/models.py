"""`minilm-np fetch` and `minilm-np info`: download a model, describe an installed one."""

import argparse
import importlib.metadata
import json
import math
import platform
from typing import TYPE_CHECKING, Any

import minilm_np
from minilm_np.cli.options import add_command, add_format_option, add_model_options, load
from minilm_np.model_files import hub
from minilm_np.model_files.checkpoint import parameter_shapes
from minilm_np.model_files.manifest import DEFAULT_MODEL, manifest_for, matches_manifest
from minilm_np.model_files.steady import read_steadily
from minilm_np.sentence_encoder import SentenceEncoder

if TYPE_CHECKING:
    from minilm_np.cli.options import Commands


def add(commands: "Commands") -> None:
    """Add `fetch` and `info` to the commands."""
    fetch = add_command(
        commands,
        "fetch",
        _fetch,
        "download a model and verify its files",
        "minilm-np fetch --to ./all-MiniLM-L6-v2",
        details="Print the folder of the model. A complete copy is left unchanged, a damaged one is\n"
        "repaired. If this package has the SHA-256 of the model's files, every file must match.",
    )
    fetch.add_argument(
        "name",
        nargs="?",
        default=DEFAULT_MODEL,
        metavar="NAME",
        help="name on the Hugging Face Hub (default: %(default)s)",
    )
    fetch.add_argument("--to", metavar="DIR", help="folder to put the model in (default: a cache folder)")

    info = add_command(
        commands,
        "info",
        _info,
        "describe the model, where it comes from, and the versions in use",
        "minilm-np info",
        details="Print one fact per line. Two machines that print the same fingerprint compute the same vectors,\n"
        "bit for bit. `as published` says whether the fingerprint is the published one of the model.",
    )
    add_format_option(info)
    add_model_options(info)


def _fetch(options: argparse.Namespace) -> int:
    print(hub.fetch(options.name, to=options.to).path)
    return 0


def _info(options: argparse.Namespace) -> int:
    encoder, published = read_steadily(options.model, lambda: _load_and_match(options))
    config, folder, kind = encoder.config, encoder.folder, encoder.model.kind
    assert folder is not None
    fingerprint = encoder.fingerprint() if encoder.contract else None
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
        "compute_type": encoder.compute_type,
        "contract": encoder.contract,
        "instructions": kind.instructions() if kind.instructions else None,
        "kernels": kind.kernels() if kind.kernels else None,
        "threads": encoder.threads,
        "fingerprint": fingerprint,
        "as_published": _as_published(published, encoder.contract, fingerprint),
        "versions": {"minilm-np": minilm_np.__version__, "python": platform.python_version()}
        | {name: _version(name) for name in ("numpy", "numba", "safetensors", "tokenizers")},
        "machine": f"{platform.system()} {platform.machine()}",
    }
    if options.format == "json":
        print(json.dumps(facts, indent=2))
        return 0
    for name, fact in facts.items():
        print(f"{name.replace('_', ' '):16}{_readable(name, fact)}")
    return 0


def _load_and_match(options: argparse.Namespace) -> tuple[SentenceEncoder, str | None]:
    """Return the model, and the name of the published model whose files its folder contains."""
    encoder = load(options)
    folder = encoder.folder
    assert folder is not None  # only a model that was not loaded from files has none
    return encoder, folder.name if folder.verified else matches_manifest(folder.path)


def _as_published(published: str | None, contract: int | str | None, fingerprint: str | None) -> bool | None:
    """Whether a published model has the published fingerprint; None if there is none to compare with."""
    manifest = None if published is None else manifest_for(published)
    expected = None if manifest is None else manifest.fingerprints.get(str(contract))
    return None if expected is None else fingerprint == expected


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # kernels that were compiled in advance run without Numba
        return "(not installed)"


ABSENT = {
    "contract": "(none: the BLAS decides the last bits)",
    "instructions": "(those that the kernels were compiled for)",
    "kernels": "(none: NumPy computes)",
    "threads": "(NumPy's BLAS decides)",
    "fingerprint": "(none: only the numba backend gives the same bits on every machine)",
    "as_published": "(unknown: no fingerprint is published for this model and contract)",
}


def _readable(name: str, fact: Any) -> str:
    """A fact in readable form."""
    if name == "verified":
        return "yes, every file has the published SHA-256" if fact else "no, this package has no SHA-256 for this model"
    if name == "as_published" and fact is not None:
        if fact:
            return "yes, the fingerprint is the published one"
        return (
            "NO: the fingerprint is another one, so this machine computes other bits. If another release of tokenizers "
            "is not the reason, this is a bug of this package: please report it with all these lines"
        )
    if fact is None:
        return ABSENT[name]
    if name == "contract":
        return f"{fact} (version of the numerical contract, see CONTRACT.md)"
    if isinstance(fact, bool):
        return "yes" if fact else "no"
    if isinstance(fact, dict):
        return ", ".join(f"{key} {value}" for key, value in fact.items())
    return f"{fact:,}" if isinstance(fact, int) else str(fact)
