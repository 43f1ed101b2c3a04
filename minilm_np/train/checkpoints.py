"""Checkpoints of a training run: everything that the rest of the run depends on, in one folder, written atomically.

    checkpoints/step-000100/model/                 the model with its weights; it loads like any other model folder
    checkpoints/step-000100/optimizer.safetensors  the state of AdamW
    checkpoints/step-000100/run.json               step, options, configuration, position in the data, best evaluation

Dropout and sampling are functions of the seed and of the step or position, so no state of a random generator is needed.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from minilm_np._files import read_json, staging_folder
from minilm_np.errors import CheckpointError, SaveError
from minilm_np.model_files.checkpoint import load_checkpoint
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.saving import save_model
from minilm_np.model_files.tensors import save_arrays
from minilm_np.sentence_encoder import SentenceEncoder

Weights = Mapping[str, NDArray[Any]]

_NAME = re.compile(r"step-(\d{6,})")
# The keys of run.json, and the type of each value.
_RUN: dict[str, Any] = {
    "step": int, "options": dict, "data": dict, "best": (float, type(None)), "since_best": int, "evaluated": int,
}  # fmt: skip


def save_weights(folder: Path, encoder: SentenceEncoder, weights: Weights) -> None:
    """Save these weights with the encoder's configuration, tokenizer and prompts. Raises SaveError."""
    save_model(folder, encoder.config, encoder.settings, encoder.tokenizer, weights)


def write(folder: Path, encoder: SentenceEncoder, weights: Weights, optimizer: Weights, run: Mapping[str, Any]) -> Path:
    """Write the checkpoint of run["step"] into a folder of checkpoints. Returns its folder. Raises SaveError."""
    target = folder / f"step-{run['step']:06d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with staging_folder(folder, ".step-", stale_s=0) as staged:  # one run at a time writes here
            save_weights(staged / "model", encoder, weights)
            save_arrays(_optimizer(staged), optimizer)
            _run(staged).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
            if target.exists():  # from an earlier attempt, resumed since from an older checkpoint
                shutil.rmtree(target)
            staged.rename(target)
    except OSError as error:
        if isinstance(error, SaveError):
            raise
        raise SaveError(f"{target}: the checkpoint cannot be written: {error.strerror or error}") from error
    return target


def read_run(checkpoint: Path) -> dict[str, Any]:
    """The content of run.json. Raises CheckpointError if it is missing or broken."""
    try:
        run = read_json(_run(checkpoint))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint}: the checkpoint cannot be read: {error}: remove this folder, to resume from an earlier one"
        ) from None
    if not (isinstance(run, dict) and all(isinstance(run.get(key), kind) for key, kind in _RUN.items())):
        raise CheckpointError(
            f"{checkpoint}: run.json: expected {', '.join(_RUN)}, found {run!r:.80}: remove this folder, to resume "
            "from an earlier one"
        )
    return run


def read_arrays(checkpoint: Path, config: ModelConfig) -> tuple[Weights, Weights]:
    """The weights and the state of the optimiser. Raises CheckpointError (missing, broken, or of another model)."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        optimizer = load_file(_optimizer(checkpoint))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{checkpoint}: the checkpoint cannot be read: {error}: remove this folder, to resume from an earlier one"
        ) from None
    return load_checkpoint(checkpoint / "model", config), optimizer


def list_checkpoints(folder: Path) -> list[Path]:
    """The folders of all checkpoints, ordered by step."""
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def keep_last(folder: Path, count: int) -> None:
    """Remove all checkpoints but the last `count`."""
    for path in list_checkpoints(folder)[:-count]:
        shutil.rmtree(
            path.rename(path.with_name(f".{path.name}.old")), ignore_errors=True
        )  # renamed first, so that no partial checkpoint can be listed


def _optimizer(checkpoint: Path) -> Path:
    return checkpoint / "optimizer.safetensors"


def _run(checkpoint: Path) -> Path:
    return checkpoint / "run.json"
