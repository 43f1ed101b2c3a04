"""A job: what its parts depend on, whether two jobs are the same, and joining all parts into the output."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from minilm_np._files import atomic_path
from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.errors import DataError, InputValueError, SaveError
from minilm_np.jobs import outputs
from minilm_np.jobs.cutting import PART_BYTES, PART_ROWS
from minilm_np.jobs.inputs import Identity, Input
from minilm_np.jobs.rows import Wanted
from minilm_np.jobs.store import FORMAT, Manifest, PartStore


@dataclass(frozen=True)
class Options:
    """What the vectors and the output depend on, apart from the inputs and the model."""

    wanted: Wanted
    format: str
    dtype: str
    prompt: str
    normalize: bool
    dimension: int  # d, of each vector
    max_seq_length: int


@dataclass(frozen=True)
class Handling:
    """How a run handles bad and long rows, and what it shows. None of this changes the bytes of a part."""

    shard: tuple[int, int]  # (number from 1, count)
    skip_bad: bool
    on_truncation: str
    shown: bool


def store_of(output: Path) -> PartStore:
    """The parts of an output: a folder beside it."""
    return PartStore(output.with_name(f"{output.name}.parts"))


def described_job(
    inputs: Sequence[Input], model: LoadedModel, texts: Sequence[str], options: Options
) -> dict[str, Any]:
    """What job.json records. texts: of the fingerprint. Raises DataError: an input cannot be read."""
    # an engine without a numerical contract has no fingerprint: its bits depend on the machine
    of_engine = model.fingerprint(texts) if model.kind.contract is not None else model.weights_digest
    wanted = options.wanted._asdict() if any(source.kind != "txt" for source in inputs) else {"carried": "text"}
    return {
        "format": FORMAT,
        "inputs": [source.identity() for source in inputs],
        "model": {
            "name": model.name,
            "fingerprint": of_engine,
            "backend": model.kind.backend,
            "compute_type": model.kind.compute_type,
        },
        "options": {
            **wanted,
            "kinds": [source.kind for source in inputs],
            "output": options.format,
            "dtype": options.dtype,
            "prompt": options.prompt,
            "normalize": options.normalize,
            "dimension": options.dimension,
            "max_seq_length": options.max_seq_length,
            "part": [PART_ROWS, PART_BYTES],
        },
    }


def check_same(found: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    """Raise DataError or InputValueError unless the parts in a folder belong to the job that is expected."""
    again = f"{folder} contains the parts of an unfinished job"
    remedy = "repeat that command to finish it, or begin again with --overwrite"
    if len(found["inputs"]) != len(expected["inputs"]):
        raise InputValueError(
            f"{again} with {len(found['inputs'])} inputs, not {len(expected['inputs'])}: {remedy}"
        )  # fmt: skip
    for before, now in zip(found["inputs"], expected["inputs"], strict=True):
        check_unchanged(before, now, f"{again}: {remedy}")
    for section, what in (("model", "the model"), ("options", "the options")):
        names = found[section].keys() | expected[section].keys()
        if section == "model":
            names -= {"name"}
        for name in sorted(names):
            before, now = found[section].get(name), expected[section].get(name)
            if before != now:
                raise InputValueError(
                    f"{again}, but {what} changed: {name} was {json.dumps(before)}, and is {json.dumps(now)}: {remedy}"
                )


def check_unchanged(before: Identity, now: Identity, remedy: str, *, times: bool = True) -> None:
    """Raise DataError if an input is not the one that was recorded. times: compare the time of the last change, too."""
    for name, what in (("bytes", "its size"), ("mtime_ns", "its time"), ("digest", "its content")):
        if before[name] != now[name] and (times or name != "mtime_ns"):  # type: ignore[literal-required]
            raise DataError(f"{now['name']}: expected the same input, found another one ({what} differs). {remedy}")


def join(output: Path, job: Mapping[str, Any], parts: Sequence[tuple[PartStore, int, Manifest]]) -> None:
    """Join all parts, in order, into the output, which is written atomically. Raises DataError, SaveError."""
    options = job["options"]
    stored = (
        outputs.Stored(manifest.rows, partial(store.chunks, index, manifest)) for store, index, manifest in parts
    )  # fmt: skip
    rows = sum(manifest.rows for *_, manifest in parts)
    try:
        with atomic_path(output) as temporary:
            outputs.FORMATS[options["output"]].join(temporary, stored, rows, options["dimension"], options["dtype"])
    except OSError as error:
        raise SaveError(
            f"{output} cannot be written: {error.strerror or error}: all parts are stored; joining them needs as much "
            "space again: free it, and run the same command again"
        ) from error


def all_parts(stores: Sequence[PartStore]) -> list[tuple[PartStore, int, Manifest]]:
    """The parts of a finished job in order, each in the first folder that has it. Raises DataError: one is missing."""
    found: dict[int, tuple[PartStore, int, Manifest]] = {}
    for store in stores:
        for index, manifest in store.manifests().items():
            found.setdefault(index, (store, index, manifest))
    last = next((index for index in sorted(found) if found[index][2].is_last), None)
    missing = [index for index in range((max(found, default=-1) if last is None else last) + 1) if index not in found]
    where = ", ".join(str(store.folder) for store in stores)
    if last is None:
        raise DataError(f"{where}: the last part is missing: finish all shards first")
    if missing:
        names = ", ".join(map(str, missing[:20])) + (" ..." if len(missing) > 20 else "")
        raise DataError(
            f"{where}: {len(missing)} of {last + 1} parts are missing ({names}; part n belongs to shard n modulo the "
            "number of shards, plus 1): finish all shards first"
        )
    return [found[index] for index in range(last + 1)]
