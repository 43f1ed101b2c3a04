"""`Run`: computes the parts of a job that are missing, and stores them.

Three threads work at the same time. One reads the next part, finds its duplicates and tokenizes it. The calling thread
computes the vectors of a part, on the threads of the engine. One converts the vectors of the previous part and writes
them. So the processors wait neither for the disk nor for Python's loops over rows.
"""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import NamedTuple, TypeVar

from minilm_np._checks import check_texts
from minilm_np._progress import progress
from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.encoding.pipeline import Pipeline
from minilm_np.engine.protocol import Report, Vectors
from minilm_np.errors import DataError, InputValueError, NonFiniteError
from minilm_np.jobs import outputs
from minilm_np.jobs.cutting import Part, Records, described, read_ahead, read_parts
from minilm_np.jobs.inputs import Identity, Input
from minilm_np.jobs.job import Handling, Options, check_unchanged
from minilm_np.jobs.rows import Position, place
from minilm_np.jobs.store import Manifest, PartStore

T = TypeVar("T")


class _Tokenized(NamedTuple):
    """A part with the token ids of its different texts. order: for each row, the number of its text."""

    part: Part
    order: list[int]
    ids: list[list[int]]
    truncated: list[bool]  # of each text
    pipeline: Pipeline

    @property
    def duplicates(self) -> int:
        """The number of rows whose text was in an earlier row."""
        return len(self.order) - len(self.ids)

    def of_rows(self, of_texts: list[T]) -> list[T]:
        """One value per row, from one value per text."""
        return [of_texts[text] for text in self.order]


class Run:
    """Computes the missing parts of a shard."""

    def __init__(
        self, inputs: Sequence[Input], identities: Sequence[Identity], model: LoadedModel, options: Options,
        handling: Handling, store: PartStore,
    ) -> None:  # fmt: skip
        self._inputs, self._identities = inputs, identities
        self._model, self._options, self._handling = model, options, handling
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
            self._check_pipe()
        else:
            self._compute_from(first, start, columns)
        self._check_unchanged(range(len(self._inputs)))

    def _compute_from(self, first: int, start: Position, columns: list[str] | None) -> None:
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
            for tokenized in read_ahead(self._tokenized(part) for part in parts):
                vectors = self._vectors(tokenized, lambda done: report(done, note.text))
                note.update(tokenized.part, sum(tokenized.of_rows(tokenized.truncated)))
                report(tokenized.duplicates, note.text)
                if pending is not None:
                    pending.result()
                pending = writer.submit(self._store_part, tokenized, vectors)
                del vectors
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

    def _check_pipe(self) -> None:
        """Raise DataError unless a pipe has the bytes that it had when all parts were computed."""
        if self._inputs[-1].is_stream:
            end = self._done[max(self._done)].end
            for _ in Records(self._inputs, self._options.wanted, end, None, one_schema=False):
                raise DataError(
                    f"{self._inputs[-1].name}: expected the same rows as in the interrupted run, found more: give the "
                    "same input, or begin again with --overwrite"
                )

    def _check_unchanged(self, files: Iterable[int]) -> None:
        """Raise DataError if one of these inputs has changed since the run began."""
        for file in files:
            check_unchanged(
                self._identities[file], self._inputs[file].identity(),
                "It changed during the run: begin again with --overwrite",
            )  # fmt: skip

    def _is_needed(self, index: int) -> bool:
        number, count = self._handling.shard
        if index % count != number - 1 or index in self._done:
            return False
        manifest = self._store.whole(index)  # a part beyond one that was missing
        if manifest is not None:
            self._done[index] = manifest
        return manifest is None

    def _tokenized(self, part: Part) -> _Tokenized:
        """The token ids of a part; each different text is tokenized, and later computed, once."""
        outputs.check_columns(self._options.format, part.schema)
        texts: dict[str, int] = {}
        order = [texts.setdefault(row.text, len(texts)) for row in part.rows]
        pipeline = Pipeline(
            self._model, self._options.prompt, "ignore", self._options.normalize, self._options.dimension
        )  # fmt: skip
        with self._placed(part):
            ids = pipeline.token_ids(check_texts(list(texts)))
        tokenized = _Tokenized(part, order, ids, pipeline.counts.truncated, pipeline)
        if self._handling.on_truncation == "error" and any(tokenized.truncated):
            self._refuse(part, tokenized.of_rows(tokenized.truncated))
        return tokenized

    def _vectors(self, tokenized: _Tokenized, report: Report) -> Vectors:
        """The vectors of the different texts of a part."""
        with self._placed(tokenized.part):
            return tokenized.pipeline.vectors_of_ids(tokenized.ids, report)

    def _store_part(self, tokenized: _Tokenized, vectors: Vectors) -> None:
        """Write the rows of a part in the format of the output, and the manifest."""
        part = tokenized.part
        with self._placed(part):
            numbers = outputs.converted(vectors, self._options.dtype)
        if tokenized.duplicates:
            numbers = numbers[tokenized.order]
        n_tokens = tokenized.of_rows(list(map(len, tokenized.ids)))
        truncated = tokenized.of_rows(tokenized.truncated)
        key = "id" if self._options.wanted.id else "text"
        encoded = outputs.Encoded(part.rows, numbers, n_tokens, truncated, part.schema, key)
        files = {row.file for row in part.rows} | {row.file for row in part.skipped}
        self._check_unchanged(files)  # so no part of another input is stored
        self._store.write(
            part.number,
            self._format.part(encoded),
            rows=len(part.rows),
            tokens=sum(n_tokens),
            truncated=sum(truncated),
            duplicates=tokenized.duplicates,
            is_last=part.is_last,
            fraction=part.fraction,
            end=part.end,
            columns=described(part.schema),
            skipped=part.skipped,
        )

    @contextmanager
    def _placed(self, part: Part) -> Iterator[None]:
        """Name the rows of a part in an error of the block, which names a text by its number."""
        try:
            yield
        except (NonFiniteError, InputValueError) as error:
            where = " to ".join(place(self._inputs[row.file], row.line) for row in (part.rows[0], part.rows[-1]))
            raise type(error)(f"{where}: {error} (texts are numbered from 0, without duplicates)") from None

    def _refuse(self, part: Part, truncated: list[bool]) -> None:
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

    def update(self, part: Part, truncated: int) -> None:
        """Count a part. truncated: the number of its rows that are."""
        seconds = max(1e-3, time.monotonic() - self._began)
        self._rows += len(part.rows)
        self._truncated += truncated
        notes = [f"{self._rows / seconds:,.0f} rows/s"]
        if part.fraction > self._first:
            left = seconds * (1 - part.fraction) / (part.fraction - self._first)
            notes += [f"{100 * part.fraction:.0f} % of the input", f"about {left:,.0f} s left"]
        self.text = ", ".join([*notes, f"{self._truncated:,} truncated"])


def _quiet(done: int, note: str = "") -> None:
    """Show no progress."""
