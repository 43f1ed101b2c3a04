"""One run of a job: which parts are missing, computing them, and joining all of them."""

import itertools
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from minilm_np._files import atomic_path
from minilm_np._progress import progress
from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.encoding.pipeline import TokenCounts, encode_with_counts
from minilm_np.errors import DataError, InputValueError, NonFiniteError, SaveError
from minilm_np.jobs import outputs
from minilm_np.jobs.cutting import PART_BYTES, PART_ROWS, Part, Records, described, read_ahead, read_parts
from minilm_np.jobs.inputs import Identity, Input
from minilm_np.jobs.rows import Position, Wanted, place
from minilm_np.jobs.store import JOB, Manifest, PartStore

FORMAT = 1  # of the folder of parts


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


def check_same(found: Any, expected: Mapping[str, Any], folder: Path) -> None:
    """Raise DataError or InputValueError unless the parts in a folder belong to the job that is expected."""
    again = f"{folder} contains the parts of an unfinished job"
    remedy = "repeat that command to finish it, or begin again with --overwrite"
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DataError(f"{folder / JOB}: expected format {FORMAT}: begin again with --overwrite")
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


class Run:
    """Computes the missing parts of a shard."""

    def __init__(
        self, inputs: Sequence[Input], model: LoadedModel, options: Options, handling: Handling, store: PartStore
    ) -> None:
        self._inputs, self._model, self._options, self._handling = inputs, model, options, handling
        self._store = store
        self._format = outputs.FORMATS[options.format]
        self._done: dict[int, Manifest] = {}  # the parts of this shard that are whole

    @property
    def resumed_rows(self) -> int:
        """The rows of this shard that earlier runs had finished."""
        return sum(manifest.rows for manifest in self._done.values())

    def compute(self) -> None:
        """Compute the parts that are missing, and store them. Raises as `embed_files`."""
        first, start, columns = self._missing()
        if start is None:
            return
        records = Records(
            self._inputs, self._options.wanted, start, columns, one_schema=self._options.format == "parquet"
        )
        parts = read_parts(records, first, self._is_needed, skip_bad=self._handling.skip_bad)
        shown = progress("embed", "row", initial=self.resumed_rows) if self._handling.shown else nullcontext(_quiet)
        fraction = self._done[max(self._done)].fraction if self._done else 0.0
        pending: Future[None] | None = None
        # Ctrl-C, or an error, still stores the part that was computed: the block waits for the writer
        with shown as report, ThreadPoolExecutor(1, "minilm_np writer") as writer:
            note = _Note(fraction, sum(manifest.truncated for manifest in self._done.values()))
            for part in read_ahead(parts):
                encoded, counts = self._encoded(part, lambda done: report(done, note.text))
                note.update(part, counts)
                report(counts["duplicates"], note.text)
                if pending is not None:
                    pending.result()
                pending = writer.submit(partial(self._store.write, part.number, self._format.part(encoded), **counts))
                del encoded
            if pending is not None:
                pending.result()

    def _missing(self) -> tuple[int, Position | None, list[str] | None]:
        """The index of a part to begin with, where it begins, and the columns before it.

        It is the first part that is missing, or an earlier one, where reading can begin. Without a missing part there
        is no position.
        """
        number, count = self._handling.shard
        for index in itertools.count(number - 1, count):
            manifest = self._store.whole(index)
            if manifest is None:
                break
            self._done[index] = manifest
            if manifest.is_last:
                return index + 1, None, None
        known = self._store.manifests()
        if known and (last := max(known)) < index and known[last].is_last:
            return index, None, None  # the input ends before that part
        before = max((found for found in known if found < index), default=None)
        if before is None:
            return 0, Position(0), None
        return before + 1, known[before].end, known[before].columns

    def _is_needed(self, index: int) -> bool:
        number, count = self._handling.shard
        if index % count != number - 1 or index in self._done:
            return False
        manifest = self._store.whole(index)  # a part beyond one that was missing
        if manifest is not None:
            self._done[index] = manifest
        return manifest is None

    def _encoded(self, part: Part, report: Any) -> tuple[outputs.Encoded, dict[str, Any]]:
        """The vectors of a part; each different text is computed once. And the counts for its manifest."""
        outputs.check_columns(self._options.format, described(part.schema))
        texts: dict[str, int] = {}
        order = [texts.setdefault(row.text, len(texts)) for row in part.rows]
        try:
            vectors, counts = encode_with_counts(
                self._model, list(texts), report, prompt=self._options.prompt, normalize=self._options.normalize,
                truncate_dim=self._options.dimension,
            )  # fmt: skip
            numbers = outputs.converted(vectors, self._options.dtype)
            if len(texts) < len(order):
                numbers = numbers[order]
        except (NonFiniteError, InputValueError) as error:
            where = " to ".join(place(self._inputs[row.file], row.line) for row in (part.rows[0], part.rows[-1]))
            raise type(error)(f"{where}: {error} (texts are numbered from 0, without duplicates)") from None
        n_tokens = [counts.n_tokens[index] for index in order]
        truncated = [counts.truncated[index] for index in order]
        if self._handling.on_truncation == "error" and any(truncated):
            self._refuse(part, truncated, counts)
        encoded = outputs.Encoded(
            part.rows, numbers, n_tokens, truncated, part.schema, "id" if self._options.wanted.id else "text"
        )
        return encoded, {
            "rows": len(part.rows),
            "tokens": sum(n_tokens),
            "truncated": sum(truncated),
            "duplicates": len(order) - len(texts),
            "is_last": part.is_last,
            "fraction": part.fraction,
            "end": part.end,
            "columns": described(part.schema),
            "skipped": part.skipped,
        }

    def _refuse(self, part: Part, truncated: list[bool], counts: TokenCounts) -> None:
        row = part.rows[truncated.index(True)]
        raise InputValueError(
            f"{place(self._inputs[row.file], row.line)}: the text ({len(row.text):,} characters) is longer than the "
            f"limit of {self._options.max_seq_length} tokens: split it, or allow truncation"
        )


class _Note:
    """What the progress shows beside the number of rows."""

    def __init__(self, fraction: float, truncated: int) -> None:
        self._began, self._first = time.monotonic(), fraction
        self._rows, self._truncated = 0, truncated
        self.text = ""

    def update(self, part: Part, counts: Mapping[str, Any]) -> None:
        """Count a part."""
        seconds = max(1e-3, time.monotonic() - self._began)
        self._rows += counts["rows"]
        self._truncated += counts["truncated"]
        notes = [f"{self._rows / seconds:,.0f} rows/s"]
        if part.fraction > self._first:
            left = seconds * (1 - part.fraction) / (part.fraction - self._first)
            notes += [f"{100 * part.fraction:.0f} % of the input", f"about {left:,.0f} s left"]
        self.text = ", ".join([*notes, f"{self._truncated:,} truncated"])


def _quiet(done: int, note: str = "") -> None:
    """Show no progress."""


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
