"""The folder of a job's parts, OUTPUT.parts: what is finished survives a killed process and a loss of power.

    job.json            what the parts depend on: the inputs, the model, the options
    000012.part         the rows of part 12 in the format of the output
    000012.json         its manifest: size and SHA-256, counts, where the next part begins
    run-1-of-1.lock     locked (flock) by the process that computes this shard

A manifest is written atomically after its part is on the disk. A part without a manifest, or with other bytes than its
manifest says, does not count: it is computed again.
"""

import dataclasses
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minilm_np._files import atomic_file, discard_folder, locked, read_json, remove_left, sync
from minilm_np.errors import DataError, SaveError
from minilm_np.jobs.cutting import Skipped
from minilm_np.jobs.inputs import CHUNK
from minilm_np.jobs.rows import Position

FORMAT = 1  # of this folder
JOB = "job.json"
OWN_NAME = re.compile(r"job\.json|[0-9]{6,}\.(part|json)|run-[0-9]+-of-[0-9]+\.lock|\..*\.tmp-[0-9a-f]{8}")
AGAIN = "the rows before are stored: solve the problem, and run the same command again"


@dataclass(frozen=True)
class Manifest:
    """What is recorded of a finished part."""

    bytes: int
    sha256: str
    rows: int
    tokens: int
    truncated: int
    duplicates: int
    is_last: bool
    fraction: float
    end: Position
    columns: list[str]
    skipped: list[Skipped] = field(default_factory=list)


class PartStore:
    """The parts of one output."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # ---- the job -----------------------------------------------------------------------------------------------------

    def job(self) -> Any:
        """The content of job.json; None without one. Raises DataError: it is damaged, or the folder is not a job's."""
        if JOB not in self._names():
            return None
        remedy = f"remove {self.folder}, and begin again"
        try:
            found = read_json(self.folder / JOB)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.folder / JOB} is damaged: {error}: {remedy}") from None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise DataError(f"{self.folder / JOB}: expected format {FORMAT}, found another one: {remedy}")
        return found

    def _names(self) -> list[str]:
        """The names in the folder; [] without a folder. Raises DataError: it cannot be read, or is not a job's."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DataError(f"{self.folder} cannot be read: {error.strerror}") from None
        if foreign := sorted(name for name in names if not OWN_NAME.fullmatch(name)):
            raise DataError(f"{self.folder}: expected the parts of an unfinished job, found {foreign[0]}: move it away")
        return names

    def begin(self, job: Any, *, replace: bool) -> Any:
        """Write job.json, unless another process has written one and `replace` is False. Returns its content."""
        with _saving(self.folder):
            self.folder.mkdir(exist_ok=True)
            sync(self.folder.parent)
            if replace:
                (self.folder / JOB).unlink(missing_ok=True)
            temporary = self.folder / f".{JOB}.tmp-{os.urandom(4).hex()}"
            temporary.write_bytes(in_utf8(json.dumps(job, indent=1, ensure_ascii=False)))
            sync(temporary)
            try:
                os.link(temporary, self.folder / JOB)  # fails if there is one, which a rename does not
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                temporary.replace(self.folder / JOB)
            temporary.unlink(missing_ok=True)
            sync(self.folder)
        return self.job()

    @contextmanager
    def lock(self, shard: tuple[int, int]) -> Iterator[None]:
        """Hold the lock of a shard. Raises SaveError: another process has it, or one of another number of shards."""
        number, count = shard
        path = self.folder / f"run-{number}-of-{count}.lock"
        with ExitStack() as stack:
            while True:
                with _saving(self.folder):
                    self.folder.mkdir(exist_ok=True)
                    with suppress(FileNotFoundError):
                        path.touch()
                try:
                    stack.enter_context(locked(path, wait=False))
                    break
                except BlockingIOError:
                    raise self._in_use() from None
                except FileNotFoundError:  # meanwhile another process finished the job, and removed the folder
                    pass
            others = (path for path in self._locks() if not path.name.endswith(f"-of-{count}.lock"))
            with self._locked(others, shared=True):  # shared: two shards may look at the same time
                pass
            yield

    def clear(self) -> None:
        """Remove the folder if no process is using it. Raises DataError: it has other files; SaveError."""
        self._names()
        with self.unused():
            self.discard()

    @contextmanager
    def unused(self) -> Iterator[None]:
        """Hold the locks of all shards that were begun. Raises SaveError: a process is computing one."""
        with self._locked(self._locks(), shared=False):
            yield

    def _locks(self) -> list[Path]:
        return sorted(self.folder.glob("run-*.lock"))

    @contextmanager
    def _locked(self, paths: Iterable[Path], *, shared: bool) -> Iterator[None]:
        """Hold the locks of the files that are there. Raises SaveError: another process has one."""
        with ExitStack() as stack:
            for path in paths:
                try:
                    stack.enter_context(locked(path, wait=False, shared=shared))
                except BlockingIOError:
                    raise self._in_use() from None
                except FileNotFoundError:
                    pass
            yield

    def _in_use(self) -> SaveError:
        return SaveError(f"{self.folder}: another process is computing these parts: wait for it, or stop it")

    def discard(self) -> None:
        """Remove the folder, and what is left of folders that were being removed when their process was killed."""
        prefix = f".{self.folder.name}.tmp-"
        remove_left(self.folder.parent, prefix)
        with _saving(self.folder), suppress(FileNotFoundError):
            discard_folder(self.folder, prefix)

    # ---- the parts ---------------------------------------------------------------------------------------------------

    def manifest(self, index: int) -> Manifest | None:
        """The manifest of a part; None if there is none, or a damaged one."""
        try:
            values = read_json(self._manifest(index))
            skipped = [Skipped(*row) for row in values.pop("skipped")]
            return Manifest(**values | {"end": Position(*values["end"]), "skipped": skipped})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def whole(self, index: int) -> Manifest | None:
        """The manifest of a part that has the bytes that were written; None without such a part. Reads the part."""
        manifest = self.manifest(index)
        try:
            for _ in self.chunks(index, manifest) if manifest else ():
                pass
        except DataError:
            return None
        return manifest

    def manifests(self) -> dict[int, Manifest]:
        """All manifests by the index of their part."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return {}
        indices = sorted(int(name.removesuffix(".json")) for name in names if re.fullmatch(r"\d+\.json", name))
        return {index: manifest for index in indices if (manifest := self.manifest(index))}

    def chunks(self, index: int, manifest: Manifest) -> Iterator[bytes]:
        """Yield the bytes of a part. Raises DataError, at the latest after the last byte, if they are damaged."""
        path, digest = self._part(index), hashlib.sha256()
        try:
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size == manifest.bytes:
                    while chunk := file.read(CHUNK):
                        digest.update(chunk)
                        yield chunk
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}: run the same command again") from None
        if digest.hexdigest() != manifest.sha256:
            raise DataError(f"{path} is damaged: run the same command again, which computes this part again")

    def write(self, index: int, parts: Iterable[bytes | memoryview], **counts: Any) -> None:
        """Write a part, then its manifest; both are on the disk when this returns. Raises SaveError."""
        path, manifest_path, digest, size = self._part(index), self._manifest(index), hashlib.sha256(), 0
        with _saving(path):
            manifest_path.unlink(missing_ok=True)
            with open(path, "wb") as file:
                for chunk in parts:
                    digest.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            manifest = dataclasses.asdict(Manifest(size, digest.hexdigest(), **counts))
            with atomic_file(manifest_path) as file:  # flushes the folder, too
                file.write(in_utf8(json.dumps(manifest, ensure_ascii=False)))

    def _part(self, index: int) -> Path:
        return self.folder / f"{index:06d}.part"

    def _manifest(self, index: int) -> Path:
        return self.folder / f"{index:06d}.json"


def in_utf8(text: str) -> bytes:
    """JSON as bytes. Lone surrogates, which Python puts in a file's name that is not UTF-8, become JSON escapes."""
    return text.encode("utf-8", "backslashreplace")


@contextmanager
def _saving(path: Path) -> Iterator[None]:
    """Raise SaveError, with what to do, for an OSError in the block."""
    try:
        yield
    except SaveError:
        raise
    except OSError as error:
        more = " (an output needs its size twice while its parts are joined)" if error.errno == errno.ENOSPC else ""
        raise SaveError(f"{path} cannot be written: {error.strerror}{more}: {AGAIN}") from error
