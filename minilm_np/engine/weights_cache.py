"""Packed weights of published models on disk, so that most processes neither hash nor pack 90 MB when they start.

A file `<model>-<compute type>-<key>.weights` has the arrays of an engine, and the pooler or the head, of a model whose
files were verified by the SHA-256 of their manifest. The key is a digest of everything that decides the content: the
SHA-256 of the weights, the kind of engine, the code that packs and its target. Format: 32 bytes of the key, 8 bytes
with the length of the header, the header (JSON), each array at a multiple of 64, and last the CRC-32 of all this, which
is checked each time. It detects damage; nobody who could forge it can write to the folder. For 90 MB it takes 27 ms,
and SHA-256 takes 63 ms.

A file `<model>.verified` has the inode, size and times of the file of weights that was verified last. If they are
unchanged and the packed weights are there, the file of weights is not read at all: all weights come from the packed
ones. In every other case the file is verified as without a cache. So no weights are used whose SHA-256 is unknown.

Files are used only from a folder to which nobody but the user and root can write (`runtime/trusted_folder.py`), and are
written atomically. If anything is wrong with the cache, the weights are packed again; if it cannot be written to,
nothing else changes. Another thread reads and checks a file, while this one loads the tokenizer and the kernels.
"""

import hashlib
import io
import json
import logging
import math
import os
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm_np._checks import short_repr
from minilm_np._files import STALE_S, package_cache
from minilm_np._forks import no_fork
from minilm_np.engine.protocol import Arrays, Weights
from minilm_np.engine.registry import EngineKind
from minilm_np.errors import InputValueError
from minilm_np.model_files.config import ModelConfig

VARIABLE = "MINILM_NP_CACHE_WEIGHTS"  # "0": packed weights are neither read nor written; "1" is the default

FORMAT = "minilm_np packed weights 1"
WEIGHTS_FILE = "model.safetensors"
FOLDER = "weights"

_KEY = hashlib.sha256().digest_size
_CHECKSUM = 4  # bytes
_ALIGNMENT = 64
_OTHER = ("pooler.", "classifier.")  # prefixes of the weights in a file that are not an engine's
# A file system's clock may stand still for 2 s: a younger file could change once more without a new time.
_SETTLED_NS = 2_000_000_000

_logger = logging.getLogger(__name__)


class UnusableCacheError(Exception):
    """The packed weights are damaged, or are not those of this model."""


class WeightsCache:
    """The packed weights of one model for one kind of engine. Each load of a model creates an object.

    reads: False: write the packed weights only.
    Raises InputValueError: the environment variable has another value than 0 and 1.
    """

    def __init__(self, kind: EngineKind, *, reads: bool = True) -> None:
        self.other: Weights = {}  # after `read`: the weights that are not the engine's
        self.is_used = False  # whether `read` returns the weights
        self._kind, self._reads = kind, reads
        value = os.environ.get(VARIABLE) or "1"
        if value not in ("0", "1"):
            raise InputValueError(f"{VARIABLE} is {short_repr(value)}: expected '0' (no cache of weights) or '1'")
        self._is_on = kind.packing is not None and value == "1"
        self._path: Path | None = None  # of the weights of a published model
        self._note, self._has_note = b"", False
        self._model, self._key = "", b""
        self._reading: _Reading | None = None

    def has(self, path: Path, sha256: str) -> bool:
        """Return whether the file at `path` need not be read: it is unchanged since its SHA-256 was this one.

        True only for the weights, and only if their packed form is here. Then this begins to read it.
        """
        if not self._is_on or path.name != WEIGHTS_FILE:
            return False
        assert self._kind.packing is not None
        identity = "\n".join((FORMAT, sha256, self._kind.name, self._kind.packing(), sys.byteorder))
        self._path, self._note = path, _note(path, sha256)
        self._model, self._key = sha256[:16], hashlib.sha256(identity.encode()).digest()
        self._has_note, self._reading, self.is_used = False, None, False
        if not self._reads:
            return False
        with no_fork:
            from minilm_np.engine.runtime.trusted_folder import trusted_folder
        try:
            with trusted_folder(package_cache(), FOLDER) as folder:
                file = folder.open(self._name)
                self._reading, self.is_used = _Reading(file, self._key), True
                self._has_note = folder.read(f"{self._model}.verified") == self._note
        except (OSError, ValueError):
            return False
        return self._has_note

    def read(self, config: ModelConfig) -> Arrays:
        """Return the engine's arrays, read-only. Waits for the thread that reads them. Raises UnusableCacheError."""
        assert self._reading is not None
        arrays = self._reading.arrays(repr(config))
        self.other = {name: arrays.pop(name) for name in list(arrays) if name.startswith(_OTHER)}
        return arrays

    def write(self, config: ModelConfig, arrays: Arrays, other: Weights) -> None:
        """Store what the cache lacks for the next process; call it after the model was verified and loaded.

        arrays: the engine's. other: the pooler, or the head of a cross-encoder. Nothing happens if the cache cannot be
        written to.
        """
        if self._path is None or (self.is_used and self._has_note):
            return
        with no_fork:
            from minilm_np.engine.runtime.trusted_folder import trusted_folder
        try:
            with (
                trusted_folder(package_cache(), FOLDER, create=True) as folder,
                folder.locked(0, waiting=lambda: None),  # to remove what killed processes left
            ):
                if not self.is_used:
                    folder.remove_old(f"{self._model}-{self._kind.compute_type}-", STALE_S)
                    folder.write(self._name, _content(self._key, repr(config), arrays | other))
                if self._is_settled():
                    folder.write(f"{self._model}.verified", self._note)
        except (OSError, ValueError) as error:
            _logger.debug("the packed weights are not cached: %s", error)

    @property
    def _name(self) -> str:
        return f"{self._model}-{self._kind.compute_type}-{self._key.hex()[:32]}.weights"

    def _is_settled(self) -> bool:
        """Whether the file of weights is still the one that was verified, and will get another time if it changes."""
        assert self._path is not None
        with suppress(OSError):
            sha256, *_, ctime_ns = self._note.decode().split()
            return _note(self._path, sha256) == self._note and time.time_ns() - int(ctime_ns) > _SETTLED_NS
        return False


def _note(path: Path, sha256: str) -> bytes:
    """The content of a file `.verified`. Raises OSError."""
    status = os.stat(path)
    found = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return " ".join(map(str, (sha256, *found))).encode()


# ---- the format ------------------------------------------------------------------------------------------------------


def _content(key: bytes, config: str, arrays: Mapping[str, NDArray[Any]]) -> Iterator[bytes | memoryview]:
    """The content of a file, part by part."""
    listed = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
    header = json.dumps({"config": config, "arrays": listed}).encode()
    checksum = 0
    parts = [memoryview(key + len(header).to_bytes(8, "little") + header)]
    parts += [array.reshape(-1).view(np.uint8).data for array in arrays.values()]
    for part in parts:
        for each in (part, bytes(-len(part) % _ALIGNMENT)):
            checksum = zlib.crc32(each, checksum)
            yield each
    yield checksum.to_bytes(_CHECKSUM, "little")


class _Reading:
    """The content of an open file, which another thread reads and checks. The file is closed afterwards."""

    def __init__(self, file: io.FileIO, key: bytes) -> None:
        self._file, self._key = file, key
        self._block: NDArray[np.uint8] | None = None
        self._error = ""  # a message, because an exception would keep the memory of the block
        self._thread: threading.Thread | None = threading.Thread(target=self._run, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system lets no thread start
            self._thread = None

    def arrays(self, config: str) -> dict[str, NDArray[Any]]:
        """The arrays in the file, which is for this config. Raises UnusableCacheError."""
        if self._thread is not None:
            self._thread.join()
        else:
            self._run()
        if self._block is None:
            raise UnusableCacheError(self._error)
        block = self._block
        start = _KEY + 8
        stop = start + int.from_bytes(block[_KEY:start].tobytes(), "little")
        header = json.loads(block[start:stop].tobytes())
        if header["config"] != config:
            raise UnusableCacheError("the packed weights are for another config")
        arrays = {}
        for name, dtype, shape in header["arrays"]:
            start = -(-stop // _ALIGNMENT) * _ALIGNMENT
            stop = start + math.prod(shape) * np.dtype(dtype).itemsize
            arrays[name] = block[start:stop].view(dtype).reshape(shape)
        return arrays

    def _run(self) -> None:
        try:
            with self._file:
                self._block = _checked(self._file, self._key)
        except (OSError, ValueError, MemoryError) as error:
            self._error = str(error)


def _checked(file: io.FileIO, key: bytes) -> NDArray[np.uint8]:
    """The whole content in one read-only block, which begins at a cache line. Raises OSError, ValueError."""
    size = os.fstat(file.fileno()).st_size - _CHECKSUM
    if size < _ALIGNMENT:
        raise ValueError("the file is truncated")
    block = np.empty(size + _ALIGNMENT, np.uint8)
    block = block[-block.ctypes.data % _ALIGNMENT :][:size]
    unread = block.data
    while unread.nbytes:  # once below 2 GB. Few and long calls: the loading of a tokenizer keeps the GIL meanwhile
        if not (n_read := file.readinto(unread)):
            raise ValueError("the file became shorter while it was read")
        unread = unread[n_read:]
    if block[:_KEY].tobytes() != key or file.read() != zlib.crc32(block.data).to_bytes(_CHECKSUM, "little"):
        raise ValueError("the file is damaged: it does not have the key of its name, or the checksum at its end")
    block.flags.writeable = False
    return block
