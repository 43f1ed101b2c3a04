"""The report of a job: what was read, computed, truncated and skipped."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from minilm_np.jobs.store import Manifest


class SkippedRow(NamedTuple):
    """A bad row that was left out. line: of Parquet and Arrow files the number of the row; from 1."""

    file: str
    line: int
    error: str


@dataclass(frozen=True)
class EmbedReport:
    """What a job has done.

    output: the file; for a shard, the folder of the parts. dimension, dtype: of a vector.
    rows: in the output. tokens: that the model read, [CLS] and [SEP] included. truncated: rows longer than the limit.
    duplicates: rows whose text was computed once for several rows. skipped: the bad rows.
    seconds, resumed_rows: of this run, and the rows that earlier runs had finished.
    model, fingerprint: the model's name, and what identifies it (see `SentenceEncoder.fingerprint`).
    """

    output: str
    rows: int
    dimension: int
    dtype: str
    tokens: int
    truncated: int
    duplicates: int
    skipped: tuple[SkippedRow, ...]
    seconds: float
    resumed_rows: int
    model: str
    fingerprint: str

    def to_json(self) -> str:
        """The report as a JSON object."""
        skipped = [row._asdict() for row in self.skipped]
        return json.dumps(dataclasses.asdict(self) | {"skipped": skipped}, indent=1, ensure_ascii=False) + "\n"

    def __str__(self) -> str:
        """The report in one line."""
        computed = self.rows - self.resumed_rows
        parts = [f"{self.rows:,} row{'s' * (self.rows != 1)}", f"{self.tokens:,} tokens"]
        if self.resumed_rows:
            parts.append(f"{self.resumed_rows:,} finished before")
        parts += [f"{self.truncated:,} truncated", f"{self.duplicates:,} duplicates computed once"]
        if self.skipped:
            parts.append(f"{len(self.skipped):,} bad rows skipped")
        rate = f" ({computed / self.seconds:,.0f} rows/s)" if computed and self.seconds else ""
        return f"{self.output}: {', '.join(parts)}, {self.seconds:,.1f} s{rate}"


def summed(
    job: Mapping[str, Any], output: Path, manifests: Sequence[Manifest], seconds: float, resumed_rows: int
) -> EmbedReport:
    """The report of the parts of a job."""
    names = [identity["name"] for identity in job["inputs"]]
    return EmbedReport(
        output=str(output),
        rows=sum(manifest.rows for manifest in manifests),
        dimension=job["options"]["dimension"],
        dtype=job["options"]["dtype"],
        tokens=sum(manifest.tokens for manifest in manifests),
        truncated=sum(manifest.truncated for manifest in manifests),
        duplicates=sum(manifest.duplicates for manifest in manifests),
        skipped=tuple(
            SkippedRow(names[row.file], row.line, row.error) for manifest in manifests for row in manifest.skipped
        ),
        seconds=round(seconds, 3),
        resumed_rows=resumed_rows,
        model=job["model"]["name"],
        fingerprint=job["model"]["fingerprint"],
    )
