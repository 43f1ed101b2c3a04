"""`embed_files` and `merge_shards`: the arguments, their checks, and the order of the steps."""

import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Literal

from minilm_np._checks import check_choice, check_int
from minilm_np._files import atomic_file, remove_left
from minilm_np.errors import DataError, InputTypeError, InputValueError, SaveError, TruncationWarning
from minilm_np.jobs import job as jobs
from minilm_np.jobs import outputs
from minilm_np.jobs.extras import pyarrow
from minilm_np.jobs.inputs import find_input
from minilm_np.jobs.report import EmbedReport, summed
from minilm_np.jobs.rows import Wanted
from minilm_np.jobs.run import Run
from minilm_np.jobs.store import JOB, PartStore, in_utf8
from minilm_np.sentence_encoder import FINGERPRINT_TEXTS, SentenceEncoder

Path_ = str | os.PathLike[str]


def embed_files(
    inputs: Path_ | Sequence[Path_],
    output: Path_,
    *,
    encoder: SentenceEncoder | None = None,
    column: str = "text",
    id: str | None = None,
    dtype: Literal["float32", "float16", "int8"] = "float32",
    input_format: str | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    on_truncation: Literal["warn", "ignore", "error"] = "warn",
    prompt_name: str | None = None,
    normalize_embeddings: bool = False,
    truncate_dim: int | None = None,
    shard: tuple[int, int] | None = None,
    overwrite: bool = False,
    report: Path_ | None = None,
    show_progress_bar: bool = False,
) -> EmbedReport:
    """Write the vectors of the rows of files to one file. Memory does not grow with the files.

    If a run was interrupted, the same call continues it, and the output has the same bytes. Finished parts are stored
    in the folder `output`.parts until the output is written.

    inputs: names that end in .txt (one text per line), .jsonl, .csv, .tsv, .parquet or .arrow, alone or followed by
        .gz or .zst; "-" is standard input. .parquet, .arrow and .zst need pyarrow.
    output: a name that ends in .npy (an array, rows in order), .parquet (the input's columns and a fixed-size list
        "embedding") or .jsonl (one object per row).
    encoder: the model; None: the published one.
    column: the column, or the field of the JSON objects, that contains the texts.
    id: the column to take over instead of the input's columns (.parquet) or the text (.jsonl).
    dtype: of the vectors. "int8": 127 x / max|x|, rounded; compare by the cosine.
    input_format: an ending such as "jsonl" or "csv.gz" for all inputs, instead of those of their names.
    on_error: "stop": a bad row (not UTF-8, null, no such field, invalid JSON) is an error; "skip": it is left out, and
        the report lists it.
    on_truncation, prompt_name, normalize_embeddings, truncate_dim: as for `SentenceEncoder.encode`. "error" names the
        row.
    shard: (k, n), to compute only the k-th of n shards, k from 1. `merge_shards` joins the parts of all shards.
    overwrite: replace an existing output, and begin again if there are parts of an earlier run.
    report: a file for the report, as JSON.
    show_progress_bar: show the progress on stderr.

    Returns the report. Raises DataError (an input or a row is bad, or the input is not that of the interrupted run),
    InputTypeError, InputValueError (an argument, or another model than before), SaveError (the output cannot be
    written), MissingExtraError, NonFiniteError.
    """
    began = time.monotonic()
    paths = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    if not paths:
        raise InputValueError("inputs: expected at least one file, found none")
    sources = [find_input(path, input_format) for path in paths]
    target = Path(output)
    format_ = outputs.find_format(target)
    check_choice("dtype", dtype, outputs.DTYPES)
    check_choice("on_error", on_error, ("stop", "skip"))
    check_choice("on_truncation", on_truncation, ("warn", "ignore", "error"))
    if format_ == "npy" and id is not None:
        raise InputValueError("id: an .npy file contains only vectors: write .parquet or .jsonl")
    if id is not None and any(source.kind == "txt" for source in sources):
        raise InputValueError("id: a .txt file has no columns: use .jsonl, .csv, .tsv, .parquet or .arrow")
    if shard is not None and any(source.is_stream for source in sources):
        raise InputValueError("shard: every shard reads the whole input, but a pipe is read once: save it to a file")
    if piped := [source for source in sources[:-1] if source.is_stream]:
        raise InputValueError(
            f"inputs: {piped[0].name} is a pipe, which must be the last input, because a run that continues compares "
            "what was read before: save it to a file, or name it last"
        )
    number, count = _shard(shard)
    store = _prepared(target, overwrite, is_shard=shard is not None)
    if format_ == "parquet":
        pyarrow(".parquet")  # raises now rather than after the first part

    encoder = SentenceEncoder() if encoder is None else encoder
    if not isinstance(encoder, SentenceEncoder):
        raise InputTypeError(f"encoder: expected a SentenceEncoder, found {type(encoder).__name__}")
    carried = "id" if id is not None else "all" if format_ == "parquet" else "text"
    options = jobs.Options(
        wanted=Wanted(column, id, carried),
        format=format_,
        dtype=dtype,
        prompt=encoder.settings.prefix(prompt_name),
        normalize=bool(normalize_embeddings),
        dimension=encoder.settings.dimension(encoder.config.vector_size, truncate_dim),
        max_seq_length=encoder.max_seq_length,
    )
    handling = jobs.Handling((number, count), on_error == "skip", on_truncation, show_progress_bar)
    expected = jobs.described_job(sources, encoder.model, FINGERPRINT_TEXTS, options)
    if overwrite:
        store.clear()  # not before: an argument or an input that is wrong costs no finished parts
    with store.lock((number, count)), _without_litter(store, is_shard=shard is not None):
        found = store.job()
        if found is None:
            _check_target(target, overwrite)  # again: another process may have finished meanwhile
        if found is None or (shard is None and not store.manifests()):  # a job without parts binds nobody
            found = store.begin(expected, replace=found is not None)
        jobs.check_same(found, expected, store.folder)
        run = Run(sources, expected["inputs"], encoder.model, options, handling, store)
        run.compute()
        if shard is None:
            parts = jobs.all_parts([store])
            jobs.join(target, expected, parts)
            manifests = [manifest for *_, manifest in parts]
        else:
            manifests = [manifest for index, manifest in store.manifests().items() if index % count == number - 1]
        place = target if shard is None else store.folder
        made = summed(expected, place, manifests, time.monotonic() - began, run.resumed_rows)
        _write_report(report, made)
        if shard is None:
            store.discard()  # last: a process that is killed before is repeated from here
    if made.truncated and on_truncation == "warn":
        _warn_truncated(made, encoder.max_seq_length)
    return made


def merge_shards(
    output: Path_, folders: Sequence[Path_] = (), *, overwrite: bool = False, report: Path_ | None = None
) -> EmbedReport:
    """Check the parts of all shards, and join them into the output. No model is loaded.

    output: as for the shards. folders: the folders of parts, if they are on several machines and were copied here;
    they are left as they are. Without any, `output`.parts is read, and removed at the end.
    overwrite: replace an existing output by the parts of `folders`. report: as for `embed_files`.

    Returns the report. Raises DataError (a part is missing or damaged, or two folders belong to different jobs),
    InputValueError, SaveError (the output cannot be written, or a process is still computing `output`.parts).
    """
    began = time.monotonic()
    target = Path(output)
    _check_target(target, overwrite or not folders)  # its own parts were begun when there was no output
    own = jobs.store_of(target)
    stores = [PartStore(Path(folder)) for folder in folders] or [own]
    job = None
    for store in stores:
        found = store.job() if (store.folder / JOB).exists() else None
        if found is None:
            raise _no_parts(store.folder, is_named=bool(folders))
        if job is None:
            job = found
        elif {**found, "inputs": None} != {**job, "inputs": None} or len(found["inputs"]) != len(job["inputs"]):
            raise DataError(f"{store.folder}: expected the job of {stores[0].folder}, found another model or options")
        for before, now in zip(job["inputs"], found["inputs"], strict=True):  # copies have other times
            jobs.check_unchanged(before, now, f"{store.folder} belongs to another job", times=False)
    assert job is not None
    if (format_ := outputs.find_format(target)) != job["options"]["output"]:
        raise InputValueError(
            f"{target}: expected the format of the parts, .{job['options']['output']}, found .{format_}"
        )
    with nullcontext() if folders else own.unused():
        parts = jobs.all_parts(stores)
        jobs.join(target, job, parts)
        made = summed(job, target, [manifest for *_, manifest in parts], time.monotonic() - began, 0)
        _write_report(report, made)
        if not folders:
            own.discard()
    return made


def _no_parts(folder: Path, *, is_named: bool) -> DataError:
    """The error for a folder of parts that does not exist, or has none. is_named: the caller named it."""
    expected = f"{folder}: expected a folder with the parts of a job, found"
    if not is_named:
        return DataError(f"{expected} none: run the shards first, or name the folders that they wrote")
    if not folder.exists():
        return DataError(f"{expected} no folder of this name: correct the name")
    return DataError(f"{expected} no job.json in it: name a folder that a shard wrote, such as OUTPUT.parts")


def _shard(shard: tuple[int, int] | None) -> tuple[int, int]:
    number, count = shard or (1, 1)
    count = check_int("shard", count, 1)
    return check_int("shard", number, 1, count), count


@contextmanager
def _without_litter(store: PartStore, *, is_shard: bool) -> Iterator[None]:
    """Remove the folder of parts if the block fails before the first part is finished."""
    try:
        yield
    except BaseException:
        if not is_shard and not store.manifests():
            with suppress(SaveError):
                store.discard()
        raise


def _prepared(target: Path, overwrite: bool, *, is_shard: bool) -> PartStore:
    """The store of the parts, if the output may be written."""
    store = jobs.store_of(target)
    remove_left(target.parent, f".{store.folder.name}.tmp-")
    if overwrite and is_shard:
        raise InputValueError(f"overwrite: the other shards use {store.folder}, too: remove it yourself")
    if overwrite or store.job() is None:
        _check_target(target, overwrite)
    return store


def _check_target(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise InputValueError(f"{target}: expected a file, found a folder: name a file in it")
    if not target.parent.is_dir():
        raise InputValueError(f"{target}: there is no folder {target.parent}: create it first")
    if target.exists() and not overwrite:
        raise SaveError(f"{target} exists: name another file, or replace it with --overwrite (overwrite=True)")


def _write_report(path: Path_ | None, made: EmbedReport) -> None:
    if path is None:
        return
    try:
        with atomic_file(path) as file:
            file.write(in_utf8(made.to_json()))
    except OSError as error:
        raise SaveError(f"{path} cannot be written: {error.strerror}: run the same command again") from error


def _warn_truncated(made: EmbedReport, limit: int) -> None:
    were = "row is longer than the limit of" if made.truncated == 1 else "rows are longer than the limit of"
    warnings.warn(
        f"{made.truncated:,} of {made.rows:,} {were} {limit} tokens, and only their beginning was read: split texts "
        "that must be read completely",
        TruncationWarning,
        stacklevel=3,
    )
