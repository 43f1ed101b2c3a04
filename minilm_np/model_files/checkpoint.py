"""The weights of a model: read from .safetensors files, strictly validated, as named float32 arrays.

The format (https://huggingface.co/docs/safetensors): 8 bytes with the length n of the header, little-endian; n bytes
of JSON with the dtype, shape and position of each tensor; the bytes of the tensors, without gaps, to the end.

Weights are untrusted files. This module therefore parses the format itself, and refuses what the safetensors library
(0.8) accepts: a name that occurs twice (the library takes the last one), NaN and infinity, `__metadata__: null`, empty
tensors. The library also maps the file into memory: if the file is truncated or rewritten later, the process is killed
(SIGBUS). And it cannot read BF16 into NumPy. Here ordinary reads fill newly allocated arrays. The library writes the
files (`tensors.py`), and the tests compare with it. Unaligned data is accepted, because some writers do not pad the
header; the arrays are aligned in any case.
"""

import io
import itertools
import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minilm_np._checks import short_repr
from minilm_np._files import MAX_JSON, open_regular, parse_json, read_json
from minilm_np.errors import CheckpointError
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.families import FAMILIES
from minilm_np.model_files.tensors import save_arrays

MAX_WEIGHTS = 2**34  # bytes of a model's weights as float32. Honest: 2 GB, for LaBSE

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"

# Prefixes of the encoder's names in the state_dict of a sentence-transformers model: before version 6, and since.
_MODULE_PREFIXES = ("0.auto_model.", "0.model.")
DENSE = "dense."  # prefix of the names of the Dense module's parameters
_ANCHOR = "embeddings.word_embeddings.weight"

# Tensors that many checkpoints contain and no sentence vector depends on, with the prefix. If that is the prefix of the
# family, the head of pretraining is unused, too. Other heads mean that the model is no sentence encoder.
_UNUSED = ("pooler.", "embeddings.position_ids")
_CLASSIFIER = "classifier."  # the head of a cross-encoder

# Bytes per element of each dtype of the format (F4 and F6, whose elements cross bytes, count as unknown); then the
# four dtypes that can be read, as NumPy's (BF16 as its bits).
_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E5M2FNUZ", "F8_E4M3FNUZ"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
_READ_AS: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}

_CHUNK = 1 << 17  # elements that are read, widened and checked at a time, while they are in the CPU's cache


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """{name: shape} of every parameter that inference uses, with Hugging Face's names, in the model's order."""
    return dict(itertools.chain(_parameters(config), _dense_parameters(config)))


def load_checkpoint(folder: Path, config: ModelConfig) -> dict[str, npt.NDArray[np.float32]]:
    """Read all weights of the model in `folder`, as `iter_checkpoint` does, in the order of `parameter_shapes`."""
    arrays = dict(iter_checkpoint(folder, config))
    return {name: arrays[name] for name in parameter_shapes(config)}


def iter_checkpoint(
    folder: Path, config: ModelConfig, *, classifier: bool = False
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Read the weights of the model in `folder`, whose config is `config`, one array per step.

    Yields (name, array) for exactly the names of `parameter_shapes`, in the order of the files. Each array owns its
    memory and is C-contiguous, aligned, finite and read-only; the files may change afterwards. F16 and BF16 are widened
    exactly, F64 is rounded to nearest. Reads `model.safetensors`, or if it is missing the shards listed in
    `model.safetensors.index.json`.

    The first step compares all names, shapes and dtypes with the config. Whoever allocates by the sizes of a config
    from a file takes this step before: then the sizes are those of the weights. The values of an array are checked when
    it is read.

    classifier: accept the head of a cross-encoder, which `read_head` reads.
    Raises CheckpointError: a tensor is missing, unexpected, malformed, of the wrong shape, not finite or not readable.
    """
    with ExitStack() as files:
        tensors = _match(_stored_tensors(_locate(folder, config.transformer_path), files), config, classifier)
        if config.dense_size is not None:
            tensors |= _match_dense(_stored_tensors(_locate(folder, config.dense_path), files), config)
        n_bytes = 4 * sum(math.prod(tensor.shape) for tensor in tensors.values())
        _check(n_bytes <= MAX_WEIGHTS, f"{folder}: weights", f"at most {MAX_WEIGHTS} bytes as float32", n_bytes)
        # in the order of the files, not of the model, because a disk reads ahead
        for name in sorted(tensors, key=lambda name: (str(tensors[name].file.name), tensors[name].start)):
            yield name, _read_tensor(tensors[name])


def read_pooler(folder: Path, config: ModelConfig) -> dict[str, npt.NDArray[np.float32]]:
    """Read the weights of the pooler, which no sentence vector depends on; {} if there are none of the right shapes.

    transformers expects them: without them it reports missing weights, and initialises new ones.
    Raises CheckpointError.
    """
    D = config.hidden_size
    with ExitStack() as files:
        stored = _stored_tensors(_locate(folder, config.transformer_path), files)
        prefix = next((prefix for prefix in _prefixes(config) if prefix + _ANCHOR in stored), "")
        found = {name: stored.get(prefix + name) for name in ("pooler.dense.weight", "pooler.dense.bias")}
        tensors = {name: tensor for name, tensor in found.items() if tensor and tensor.dtype in _READ_AS}
        if [tensor.shape for tensor in tensors.values()] != [(D, D), (D,)]:
            return {}
        return {name: _read_tensor(tensor) for name, tensor in tensors.items()}


def read_head(folder: Path, config: ModelConfig, n_labels: int) -> dict[str, npt.NDArray[np.float32]]:
    """Read the head of a cross-encoder: BERT's pooler, and a classifier with `n_labels` outputs.

    Returns {"pooler.dense.weight": (D, D), "pooler.dense.bias": (D,), "classifier.weight": (C, D), "classifier.bias":
    (C,)}, as `iter_checkpoint` reads arrays. Raises CheckpointError: one is missing, or broken.
    """
    path = _locate(folder, config.transformer_path)
    with ExitStack() as files:
        stored, head = _stored_tensors(path, files), {}
        for name, shape in head_shapes(config, n_labels).items():
            stored_name = f"bert.{name}" if name.startswith("pooler.") else name
            if (tensor := stored.get(stored_name)) is None:
                why = "transformers would replace it by random numbers" if "pooler" in name else "no score without it"
                raise CheckpointError(f"{path}: tensor {stored_name!r} is missing: expected shape {shape}: {why}")
            _check_tensor(tensor, shape)
            head[name] = _read_tensor(tensor)
        return head


def head_shapes(config: ModelConfig, n_labels: int) -> dict[str, tuple[int, ...]]:
    """{name: shape} of the head of a cross-encoder with `n_labels` outputs."""
    D = config.hidden_size
    return {
        "pooler.dense.weight": (D, D),
        "pooler.dense.bias": (D,),
        "classifier.weight": (n_labels, D),
        "classifier.bias": (n_labels,),
    }


def write_checkpoint(path: Path, weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write named arrays as a .safetensors file, atomically.

    Raises CheckpointError: the file cannot be written, or the format does not have a dtype.
    """
    try:
        save_arrays(path, weights, {"format": "pt"})
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error}") from error


# ---------------------------------------------------------------------------------------------- which tensors


@dataclass(frozen=True)
class _Tensor:
    """The verified description of a tensor in the header of a file; `name` is as stored, with its prefix."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int  # position of the first byte in the file
    stop: int  # position after the last byte
    file: io.FileIO

    def __str__(self) -> str:
        return f"{self.file.name}: tensor {short_repr(self.name)}"


def _parameters(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of each parameter, in the model's order."""
    D, F = config.hidden_size, config.intermediate_size

    def dense(name: str, n_out: int, n_in: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (n_out, n_in)
        yield f"{name}.bias", (n_out,)

    def layer_norm(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.LayerNorm.weight", (D,)
        yield f"{name}.LayerNorm.bias", (D,)

    yield "embeddings.word_embeddings.weight", (config.vocab_size, D)
    yield "embeddings.position_embeddings.weight", (config.max_position_embeddings, D)
    if config.type_vocab_size:
        yield "embeddings.token_type_embeddings.weight", (config.type_vocab_size, D)
    yield from layer_norm("embeddings")
    if buckets := config.relative_attention_num_buckets:
        yield "encoder.relative_attention_bias.weight", (buckets, config.num_attention_heads)
    for layer in range(config.num_hidden_layers):
        at = f"encoder.layer.{layer}"
        yield from dense(f"{at}.attention.self.query", D, D)
        yield from dense(f"{at}.attention.self.key", D, D)
        yield from dense(f"{at}.attention.self.value", D, D)
        yield from dense(f"{at}.attention.output.dense", D, D)
        yield from layer_norm(f"{at}.attention.output")
        yield from dense(f"{at}.intermediate.dense", F, D)
        yield from dense(f"{at}.output.dense", D, F)
        yield from layer_norm(f"{at}.output")


def _prefixes(config: ModelConfig) -> tuple[str, ...]:
    """The prefixes that the encoder's names may have: as saved alone, with a head, or as a module."""
    return "", FAMILIES[config.model_type].prefix, *_MODULE_PREFIXES


def _dense_parameters(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of the parameters of the Dense module, if there is one. Its file has them without `dense.`."""
    if config.dense_size is not None:
        yield f"{DENSE}linear.weight", (config.dense_size, config.hidden_size)
        if config.dense_bias:
            yield f"{DENSE}linear.bias", (config.dense_size,)


def _match_dense(stored: Mapping[str, _Tensor], config: ModelConfig) -> dict[str, _Tensor]:
    """{name in the model: stored tensor} of the Dense module; every name, shape and dtype matches its config."""
    expected = dict(_dense_parameters(config))
    found = {f"{DENSE}{name}": tensor for name, tensor in stored.items()}
    where = next(iter(stored.values())).file.name
    if found.keys() != expected.keys():
        names = ", ".join(repr(name.removeprefix(DENSE)) for name in expected)
        raise CheckpointError(f"{where}: expected the tensors {names}, from config.json, found {_show_some(stored)}")
    for name, shape in expected.items():
        _check_tensor(found[name], shape)
    return {name: found[name] for name in expected}


def _check_tensor(tensor: _Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise CheckpointError(f"{tensor}: expected shape {shape}, from config.json, found {short_repr(tensor.shape)}")
    if tensor.dtype not in _READ_AS:
        raise CheckpointError(f"{tensor}: expected dtype {', '.join(_READ_AS)}, found {tensor.dtype}")


def _match(stored: Mapping[str, _Tensor], config: ModelConfig, classifier: bool = False) -> dict[str, _Tensor]:
    """{name in the model: stored tensor}, in the model's order; every name, shape and dtype matches the config.

    classifier: whether the head of a cross-encoder is accepted.
    """
    where = next(iter(stored.values())).file.name
    family, known_prefixes = FAMILIES[config.model_type], _prefixes(config)
    prefixes = [prefix for prefix in known_prefixes if prefix + _ANCHOR in stored]
    if len(prefixes) != 1:
        known = ", ".join(map(repr, known_prefixes))
        raise CheckpointError(
            f"{where}: {_ANCHOR!r}: expected with exactly one of the prefixes {known}, found "
            f"{' and '.join(map(repr, prefixes)) or 'none'}: the file contains {_show_some(stored)}"
        )
    prefix = prefixes[0]
    unused = tuple(prefix + name for name in _UNUSED) + (family.head if prefix == family.prefix else ())
    unused += (_CLASSIFIER,) if classifier else ()
    left: dict[str, _Tensor] = {}  # {name in the model: tensor}
    unexpected = []
    for name, tensor in stored.items():
        if name.startswith(unused):
            continue
        if not name.startswith(prefix):
            unexpected.append(name)
            continue
        # in checkpoints converted from TensorFlow before 2020, a LayerNorm has gamma and beta
        own_name = name.removeprefix(prefix).replace("LayerNorm.gamma", "LayerNorm.weight")
        own_name = own_name.replace("LayerNorm.beta", "LayerNorm.bias")
        if own_name in left:
            raise CheckpointError(
                f"{tensor}: expected only one of this and {short_repr(left[own_name].name)}, found both"
            )
        left[own_name] = tensor

    found: dict[str, _Tensor] = {}
    for name, shape in _parameters(config):  # lazy: the config may have 2**31 layers, the first missing tensor ends it
        own_name = family.stored_name(name)
        if own_name not in left:
            module = prefix + own_name.rpartition(".")[0]
            near = _show_some(other for other in stored if other.startswith(module))
            raise CheckpointError(
                f"{where}: tensor {prefix + own_name!r} is missing: expected shape {shape}, from config.json; "
                f"found {len(stored)} tensors; those of this module: {near}"
            )
        tensor = found[name] = left.pop(own_name)
        _check_tensor(tensor, shape)
    unexpected += [tensor.name for tensor in left.values()]
    if unexpected:
        is_pair = all(name.startswith(_CLASSIFIER) for name in unexpected)
        raise CheckpointError(
            f"{where}: {len(unexpected)} unexpected tensors: {_show_some(unexpected)}: the model of config.json has "
            f"{config.num_hidden_layers} layers and no such tensors: use the config and the weights of one model"
            + (", or minilm_np.CrossEncoder for a cross-encoder" if is_pair else "")
        )
    return found


# ----------------------------------------------------------------------------------------------- which files


def _locate(model: Path, module: str) -> Path:
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


def _stored_tensors(path: Path, files: ExitStack) -> dict[str, _Tensor]:
    """{stored name: tensor} of the file or index at `path`; the files stay open in `files`."""
    if path.name == _SINGLE:
        stored = _read_header(files.enter_context(_open(path)))
    else:
        weight_map = _read_index(path)
        stored = {}
        for shard in sorted(set(weight_map.values())):
            file = files.enter_context(_open(path.with_name(shard)))
            _check_link(path.with_name(shard), file)
            tensors = _read_header(file)
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
    _check(isinstance(weight_map, dict), str(path), "an object with an object 'weight_map'", index)
    for name, shard in weight_map.items():
        _check(
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


# ------------------------------------------------------------------------------------------------- one file


@contextmanager
def _open(path: Path) -> Iterator[io.FileIO]:
    """Open a regular file with weights, and check at the end that it has not changed."""
    with ExitStack() as opened:
        try:
            file = opened.enter_context(open_regular(path))
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
        before = os.fstat(file.fileno())
        yield file
        after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise CheckpointError(f"{path} changed while it was being read: load the model again")


def _read_header(file: io.FileIO) -> dict[str, _Tensor]:
    """{stored name: tensor} of one file. The tensors cover the data of the file without gap or overlap."""
    path, size = file.name, os.fstat(file.fileno()).st_size
    if size < 8:
        found = f"{size} bytes: the file is truncated" if size else "an empty file"
        raise CheckpointError(f"{path}: expected at least the 8 bytes of the header's length, found {found}")
    length = int.from_bytes(_read_bytes(file, 8), "little")
    most = min(MAX_JSON, size - 8)
    hint = "the file is truncated, or is not a safetensors file"
    _check(length <= most, f"{path}: the header's length", f"at most {most} in a file of {size} bytes", length, hint)
    raw = _read_bytes(file, length)
    _check(raw.startswith(b"{"), f"{path}: the header's first byte", "'{'", raw[:1])
    try:
        header = parse_json(raw)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    metadata = header.pop("__metadata__", {})
    strings = isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    _check(strings, f"{path}: __metadata__", "an object of strings", metadata)

    data = 8 + length  # position of the first tensor
    tensors = [_parse_tensor(file, data, name, entry) for name, entry in header.items()]
    end, before = data, "the header"
    for tensor in sorted(tensors, key=lambda tensor: tensor.start):
        hint = f"it {'overlaps' if tensor.start < end else 'leaves a gap after'} {before}"
        _check(tensor.start == end, f"{tensor}: data_offsets", f"a start at {end - data}", tensor.start - data, hint)
        end, before = tensor.stop, short_repr(tensor.name)
    hint = "the file is truncated: download it again" if size < end else "there is data after the last tensor"
    _check(end == size, f"{path}: size", f"{end} bytes, according to the header", size, hint)
    return {tensor.name: tensor for tensor in tensors}


def _parse_tensor(file: io.FileIO, data: int, name: str, entry: Any) -> _Tensor:
    """The tensor of one entry of a header, after a check of its types, dtype, shape and size."""
    where = f"{file.name}: tensor {short_repr(name)}"
    fields = isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"}
    _check(fields, where, "an object of dtype, shape and data_offsets", entry)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    _check(isinstance(dtype, str) and dtype in _BYTES, f"{where}: dtype", f"one of {', '.join(_BYTES)}", dtype)
    # 64 dimensions are NumPy's limit; with sizes below 2**63, the product has a bounded number of digits
    sizes = isinstance(shape, list) and len(shape) <= 64 and all(type(n) is int and 0 < n < 2**63 for n in shape)
    _check(sizes, f"{where}: shape", "a list of at most 64 integers from 1 to 2**63 - 1", shape)
    pair = isinstance(offsets, list) and len(offsets) == 2 and all(type(n) is int for n in offsets)
    _check(pair and 0 <= offsets[0] <= offsets[1] < 2**63, f"{where}: data_offsets", "integers 0 <= a <= b", offsets)
    start, stop = offsets
    n_bytes = math.prod(shape) * _BYTES[dtype]
    of = f"{short_repr(n_bytes)} bytes, for {dtype} of shape {short_repr(tuple(shape))}"
    _check(stop - start == n_bytes, f"{where}: data_offsets", of, stop - start)
    return _Tensor(name, dtype, tuple(shape), data + start, data + stop, file)


# ------------------------------------------------------------------------------------------------- the bytes


def _read_tensor(tensor: _Tensor) -> npt.NDArray[np.float32]:
    """Read a tensor into a new, read-only float32 array. Every element is finite."""
    array = np.empty(tensor.shape, np.float32)
    flat: npt.NDArray[np.float32] = array.reshape(-1)
    stored: np.dtype[Any] = _READ_AS[tensor.dtype]
    tensor.file.seek(tensor.start)
    n_bad, first_bad = 0, ""
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        raw = part if stored == part.dtype else np.empty(part.size, stored)
        _read_into(tensor.file, raw.data.cast("B"))
        if tensor.dtype == "BF16":  # the upper half of a float32
            np.left_shift(raw, np.uint32(16), out=part.view(np.uint32))
        elif raw is not part:
            with np.errstate(all="ignore"):
                part[:] = raw
        bad = ~np.isfinite(part)
        if bad.any():
            if not n_bad:
                i = int(bad.argmax())
                value = part[i] if tensor.dtype == "BF16" else raw[i]
                kind = "too large for float32" if np.isfinite(value) else "NaN or infinite"
                index = tuple(int(n) for n in np.unravel_index(start + i, tensor.shape))
                first_bad = f"{kind}, the first at index {index}: {value}"
            n_bad += int(np.count_nonzero(bad))
    if n_bad:
        raise CheckpointError(f"{tensor}: expected finite values, found {n_bad} of {flat.size} {first_bad}")
    array.flags.writeable = False
    return array


def _read_bytes(file: io.FileIO, size: int) -> bytes:
    """Read the next `size` bytes of a file."""
    buffer = bytearray(size)
    _read_into(file, memoryview(buffer))
    return bytes(buffer)


def _read_into(file: io.FileIO, view: memoryview) -> None:
    """Fill `view` with the next bytes of a file."""
    while view.nbytes:
        try:
            n_read = file.readinto(view)
        except OSError as error:
            raise CheckpointError(f"{file.name} cannot be read: {error.strerror or error}") from None
        if not n_read:
            raise CheckpointError(f"{file.name} was truncated while it was being read: {view.nbytes} bytes are missing")
        view = view[n_read:]


def _check(holds: object, where: str, expected: str, found: object, hint: str = "") -> None:
    """Raise CheckpointError unless `holds`."""
    if not holds:
        raise CheckpointError(
            f"{where}: expected {expected}, found {short_repr(found)}" + (f": {hint}" if hint else "")
        )


def _show_some(names: Iterable[str]) -> str:
    """The first three names for a message."""
    listed = sorted(names)
    return ", ".join(map(short_repr, listed[:3])) + (f" and {len(listed) - 3} more" if listed[3:] else "") or "none"
