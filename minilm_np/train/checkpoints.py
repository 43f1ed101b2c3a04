"""Checkpoints of a training run: everything that the rest of the run depends on, in one folder, written atomically.

    checkpoints/step-000100/model/                 the model with its weights; it loads like any other model folder
    checkpoints/step-000100/optimizer.safetensors  the state of AdamW
    checkpoints/step-000100/run.json               step, options, configuration, position in the data, best evaluation

Dropout and sampling are functions of the seed and of the step or position, so no state of a random generator is needed.
"""

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from minilm_np._checks import is_finite_number
from minilm_np._files import discard_folder, read_json, reason, remove_left, replace_folder, staging_folder
from minilm_np._text_files import shown
from minilm_np.errors import CheckpointError, InputValueError, SaveError
from minilm_np.model_files import tensors
from minilm_np.model_files.checkpoint import load_checkpoint
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.saving import save_model
from minilm_np.sentence_encoder import SentenceEncoder

Weights = Mapping[str, NDArray[Any]]

_NAME = re.compile(r"step-(\d{6,})")
_PREFIX = ".step-"  # of unfinished and of discarded checkpoints
_SLACK = 4 << 20  # bytes of a checkpoint besides the arrays: the tokenizer, the configuration, the position in the data
_RUN = ("step", "options", "data", "best", "since_best", "evaluated")  # the keys of run.json


def save_weights(folder: Path, encoder: SentenceEncoder, weights: Weights) -> None:
    """Save these weights with the encoder's configuration, tokenizer and prompts. Raises SaveError."""
    save_model(folder, encoder.config, encoder.settings, encoder.tokenizer, {**weights, **encoder.model.pooler})


def write(folder: Path, encoder: SentenceEncoder, weights: Weights, optimizer: Weights, run: Mapping[str, Any]) -> Path:
    """Write the checkpoint of run["step"] into a folder of checkpoints. Returns its folder. Raises SaveError."""
    target = folder / f"step-{run['step']:06d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with staging_folder(folder, _PREFIX) as staged:
            save_weights(staged / "model", encoder, weights)
            tensors.save_arrays(_optimizer(staged), optimizer)
            _run(staged).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
            replace_folder(target, staged)  # one is there if the run was resumed from an older checkpoint
    except OSError as error:
        raise SaveError(f"{target}: the checkpoint cannot be written: {reason(error)}") from error
    return target


def read_run(checkpoint: Path) -> dict[str, Any]:
    """The content of run.json. Raises CheckpointError if it is missing or broken."""
    try:
        run = read_json(_run(checkpoint))
    except (OSError, ValueError) as error:
        raise broken(checkpoint, f"run.json cannot be read: {reason(error)}") from None
    if not (isinstance(run, dict) and all(key in run for key in _RUN)):
        raise broken(checkpoint, f"run.json: expected {', '.join(_RUN)}, found {shown(run)}")
    for key in ("step", "since_best", "evaluated"):
        if type(run[key]) is not int or not 0 <= run[key] < 2**63:
            raise broken(checkpoint, f"run.json: {key}: expected an integer of at least 0, found {shown(run[key])}")
    for key in ("options", "data"):
        if not isinstance(run[key], dict):
            raise broken(checkpoint, f"run.json: {key}: expected an object, found {shown(run[key])}")
    if run["best"] is not None and not is_finite_number(run["best"]):
        raise broken(checkpoint, f"run.json: best: expected a finite number or null, found {shown(run['best'])}")
    if run["step"] != _step(checkpoint):
        raise broken(checkpoint, f"run.json: step: expected that of the folder's name, found {run['step']}")
    return run


def read_arrays(checkpoint: Path, config: ModelConfig) -> tuple[Weights, Weights]:
    """The weights and the state of the optimiser. Raises CheckpointError (missing, broken, or of another model)."""
    path = _optimizer(checkpoint)
    try:
        optimizer, _ = tensors.read_arrays(path)
    except (OSError, InputValueError) as error:
        raise broken(checkpoint, f"{path.name} cannot be read: {reason(error)}") from None
    try:
        return load_checkpoint(checkpoint / "model", config), optimizer
    except CheckpointError as error:
        raise broken(checkpoint, str(error)) from None


def broken(checkpoint: Path, found: str) -> CheckpointError:
    """The error for a checkpoint that cannot be resumed from."""
    return CheckpointError(f"{checkpoint}: {found}: remove this folder, to resume from an earlier one")


def list_checkpoints(folder: Path) -> list[Path]:
    """The folders of all checkpoints, ordered by step."""
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def keep_last(folder: Path, count: int) -> None:
    """Remove all checkpoints but the last `count`, and the unfinished ones of killed runs."""
    remove_left(folder, _PREFIX)
    for path in list_checkpoints(folder)[:-count]:
        with suppress(OSError):  # it stays; that is no reason to stop a run
            discard_folder(path, _PREFIX)


@contextmanager
def reserved_room(folder: Path, weights: Weights) -> Iterator[IO[bytes]]:
    """Reserve room on the disk for one checkpoint: an unnamed file in `folder`, until it is closed.

    When the disk is full, a run can close it, and still write a checkpoint of all steps done. Where the system cannot
    reserve room (macOS, Windows, some file systems) the file is empty. Raises SaveError: there is not enough room.
    """
    size = 3 * sum(array.nbytes for array in weights.values()) + _SLACK  # the weights, and m and v of AdamW
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.EFBIG):
                raise SaveError(
                    f"{folder}: expected room for one checkpoint, {size / 1e6:.0f} MB, found less "
                    f"({error.strerror or error}): free space, or choose another folder"
                ) from error
        yield file


def _optimizer(checkpoint: Path) -> Path:
    return checkpoint / "optimizer.safetensors"


def _run(checkpoint: Path) -> Path:
    return checkpoint / "run.json"
