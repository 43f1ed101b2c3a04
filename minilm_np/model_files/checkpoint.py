"""The weights of a model: which tensors its files must have, read as named float32 arrays.

`shards.py` finds the files, and `safetensors_file.py` reads each of them.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minilm_np._checks import short_repr
from minilm_np.errors import CheckpointError
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.families import FAMILIES
from minilm_np.model_files.safetensors_file import READ_AS, Tensor, check, read_tensor
from minilm_np.model_files.shards import locate, stored_tensors
from minilm_np.model_files.tensors import save_arrays

MAX_WEIGHTS = 2**34  # bytes of a model's weights as float32. Honest: 2 GB, for LaBSE

# Prefixes of the encoder's names in the state_dict of a sentence-transformers model: before version 6, and since.
_MODULE_PREFIXES = ("0.auto_model.", "0.model.")
DENSE = "dense."  # prefix of the names of the Dense module's parameters
_ANCHOR = "embeddings.word_embeddings.weight"

# Tensors that many checkpoints contain and no sentence vector depends on, with the prefix. If that is the prefix of the
# family, the head of pretraining is unused, too. Other heads mean that the model is no sentence encoder.
_UNUSED = ("pooler.", "embeddings.position_ids")
_CLASSIFIER = "classifier."  # the head of a cross-encoder


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

    The first step compares all names, shapes and dtypes with the config. Take it before allocating memory by the sizes
    in a config that was read from a file: after it, they are the sizes of the weights. The values of an array are
    checked when it is read.

    classifier: accept the head of a cross-encoder, which `read_head` reads.
    Raises CheckpointError: a tensor is missing, unexpected, malformed, of the wrong shape, not finite or not readable.
    """
    with ExitStack() as files:
        tensors = _match(stored_tensors(locate(folder, config.transformer_path), files), config, classifier)
        if config.dense_size is not None:
            tensors |= _match_dense(stored_tensors(locate(folder, config.dense_path), files), config)
        n_bytes = 4 * sum(math.prod(tensor.shape) for tensor in tensors.values())
        check(n_bytes <= MAX_WEIGHTS, f"{folder}: weights", f"at most {MAX_WEIGHTS} bytes as float32", n_bytes)
        # in the order of the files, not of the model, because a disk reads ahead
        for name in sorted(tensors, key=lambda name: (str(tensors[name].file.name), tensors[name].start)):
            yield name, read_tensor(tensors[name])


def read_pooler(folder: Path, config: ModelConfig) -> dict[str, npt.NDArray[np.float32]]:
    """Read the weights of the pooler, which no sentence vector depends on; {} if there are none of the right shapes.

    transformers expects them: without them it reports missing weights, and initialises new ones.
    Raises CheckpointError.
    """
    D = config.hidden_size
    with ExitStack() as files:
        stored = stored_tensors(locate(folder, config.transformer_path), files)
        prefix = next((prefix for prefix in _prefixes(config) if prefix + _ANCHOR in stored), "")
        found = {name: stored.get(prefix + name) for name in ("pooler.dense.weight", "pooler.dense.bias")}
        tensors = {name: tensor for name, tensor in found.items() if tensor and tensor.dtype in READ_AS}
        if [tensor.shape for tensor in tensors.values()] != [(D, D), (D,)]:
            return {}
        return {name: read_tensor(tensor) for name, tensor in tensors.items()}


def read_head(folder: Path, config: ModelConfig, n_labels: int) -> dict[str, npt.NDArray[np.float32]]:
    """Read the head of a cross-encoder: BERT's pooler, and a classifier with `n_labels` outputs.

    Returns {"pooler.dense.weight": (D, D), "pooler.dense.bias": (D,), "classifier.weight": (C, D), "classifier.bias":
    (C,)}, as `iter_checkpoint` reads arrays. Raises CheckpointError: one is missing, or broken.
    """
    path = locate(folder, config.transformer_path)
    with ExitStack() as files:
        stored, head = stored_tensors(path, files), {}
        for name, shape in head_shapes(config, n_labels).items():
            stored_name = f"bert.{name}" if name.startswith("pooler.") else name
            if (tensor := stored.get(stored_name)) is None:
                why = "transformers would replace it by random numbers" if "pooler" in name else "no score without it"
                raise CheckpointError(f"{path}: tensor {stored_name!r} is missing: expected shape {shape}: {why}")
            _check_tensor(tensor, shape)
            head[name] = read_tensor(tensor)
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


def _match_dense(stored: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
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


def _check_tensor(tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise CheckpointError(f"{tensor}: expected shape {shape}, from config.json, found {short_repr(tensor.shape)}")
    if tensor.dtype not in READ_AS:
        raise CheckpointError(f"{tensor}: expected dtype {', '.join(READ_AS)}, found {tensor.dtype}")


def _match(stored: Mapping[str, Tensor], config: ModelConfig, classifier: bool = False) -> dict[str, Tensor]:
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
    left: dict[str, Tensor] = {}  # {name in the model: tensor}
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

    found: dict[str, Tensor] = {}
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


def _show_some(names: Iterable[str]) -> str:
    """The first three names for a message."""
    listed = sorted(names)
    return ", ".join(map(short_repr, listed[:3])) + (f" and {len(listed) - 3} more" if listed[3:] else "") or "none"
