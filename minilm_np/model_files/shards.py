"""The files of a model's weights: model.safetensors, or the shards that model.safetensors.index.json lists."""

import io
import os
import re
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from minilm_np._checks import short_repr
from minilm_np._files import read_json
from minilm_np.errors import CheckpointError
from minilm_np.model_files.safetensors_file import Tensor, check, open_weights, read_header

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def locate(model: Path, module: str) -> Path:
    """The path of the single file of a module in a model's folder if it exists, else of the index of the shards."""
    folder = model / module
    for name in (_SINGLE, _INDEX):
        if os.path.lexists(folder / name):
            return folder / name
    found = "neither" if folder.is_dir() else "no such folder"
    if os.path.lexists(folder / "pytorch_model.bin"):
        program = (
            "from sentence_transformers import SentenceTransformer as S; "
            f"S({str(model)!r}, device='cpu').save({str(model) + '-safetensors'!r})"
        )
        found = (
            "pytorch_model.bin, which is a pickle: it is not read, because loading a pickle runs the code in it. If "
            "you trust it, convert the model with this command, and load the new folder: python -c "
            f"{shlex.quote(program)}"
        )
    raise CheckpointError(f"{folder}: expected {_SINGLE} or {_INDEX}, found {found}")


def stored_tensors(path: Path, files: ExitStack) -> dict[str, Tensor]:
    """{stored name: tensor} of the file or index at `path`; the files stay open in `files`."""
    if path.name == _SINGLE:
        stored = read_header(files.enter_context(open_weights(path)))
    else:
        weight_map = _read_index(path)
        stored = {}
        for shard in sorted(set(weight_map.values())):
            file = files.enter_context(open_weights(path.with_name(shard)))
            _check_link(path.with_name(shard), file)
            tensors = read_header(file)
            for name, tensor in tensors.items():
                if weight_map.get(name) != shard:
                    place = f"in {short_repr(weight_map[name])}" if name in weight_map else "in no file"
                    raise CheckpointError(f"{tensor}: expected {place}, according to {path}, found in this file")
            stored.update(tensors)
        for name, shard in weight_map.items():
            if name not in stored:
                raise CheckpointError(f"{path}: tensor {short_repr(name)}: expected in {shard}, found in no file")
    if not stored:
        raise CheckpointError(f"{path}: expected the tensors of a model, found none")
    return stored


def _read_index(path: Path) -> dict[str, str]:
    """model.safetensors.index.json -> {tensor: shard}; each shard is a file name without folders."""
    try:
        index = read_json(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    weight_map: Any = index.get("weight_map") if isinstance(index, dict) else None
    check(isinstance(weight_map, dict), str(path), "an object with an object 'weight_map'", index)
    for name, shard in weight_map.items():
        check(
            isinstance(shard, str) and re.fullmatch(r"[\w.-]+\.safetensors", shard),
            f"{path}: tensor {short_repr(name)}",
            "the name of a .safetensors file in the same folder (letters, digits, '.', '-', '_')",
            shard,
        )
    return dict(weight_map)


def _check_link(shard: Path, file: io.FileIO) -> None:
    """Refuse a shard that is a link to another folder, unless to the blobs of its Hugging Face cache.

    In such a cache every file is a link, `snapshots/<revision>/x -> ../../blobs/<hash>`. model.safetensors may link
    anywhere, because its name is fixed: only a name that comes from the index can be an attack.

    file: the shard, open. If the link changed after it was opened, that is an error, too.
    """
    folder, target = Path(os.path.realpath(shard.parent)), Path(os.path.realpath(shard))
    allowed = [folder] + [above.parent / "blobs" for above in folder.parents if above.name == "snapshots"]
    if target.parent not in allowed:
        raise CheckpointError(f"{shard} is a link to {target}, outside the model folder: copy the file into the folder")
    try:
        same = os.path.samestat(os.stat(target), os.fstat(file.fileno()))
    except OSError:
        same = False
    if not same:  # the link was changed after the file was opened
        raise CheckpointError(f"{shard} changed while it was being read: load the model again")
