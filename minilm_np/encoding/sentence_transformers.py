"""Arguments and attributes that exist only for code written for sentence-transformers.

Values that change nothing are accepted. Any other value is an error that says what to do instead.
"""

import sys
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

from minilm_np._checks import check_choice
from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.vectors.names import PRECISIONS

T = TypeVar("T")

OUTPUT_VALUES = ("sentence_embedding", "token_embeddings", None)

# Arguments of SentenceTransformer() that must be empty, and what to do instead.
_INSTEAD = {
    "cache_folder": "set the environment variable HF_HUB_CACHE or MINILM_NP_CACHE",
    "config_kwargs": "change config.json in a copy of the folder",
    "model_card_data": "this package writes no model card",
    "model_kwargs": "the weights are always read as float32",
    "modules": "save the modules, then pass the path of the folder",
    "processor_kwargs": "change tokenizer_config.json in a copy of the folder",
    "revision": "download that revision with `hf download`, then pass the path of its folder",
    "token": "set HF_TOKEN",
    "tokenizer_kwargs": "change tokenizer_config.json in a copy of the folder",
    "use_auth_token": "set HF_TOKEN",
}


def check_others(others: Mapping[str, object], class_name: str = "SentenceEncoder") -> None:
    """Raise unless all further arguments of the constructor are sentence-transformers' and empty.

    `trust_remote_code` may have any value: code in a model folder is never run. Raises InputTypeError, InputValueError.
    """
    for name, value in others.items():
        if name not in _INSTEAD and name != "trust_remote_code":
            raise InputTypeError(f"{class_name} has no argument {name!r}")
        if name in _INSTEAD and value not in (None, False, {}):
            raise InputValueError(f"{name}: expected None, found {value!r:.80}: {_INSTEAD[name]}")


def take_inputs(inputs: str | Iterable[str] | None, others: dict[str, Any]) -> str | Iterable[str]:
    """The texts of `encode`: `inputs`, or `sentences`, its older name. Empties `others`.

    Raises InputTypeError for both, InputValueError for an argument that `encode` does not have. `task` is ignored: it
    selects a module that no supported model has.
    """
    inputs = by_either_name("inputs", inputs, "sentences", others)
    others.pop("task", None)
    if value := others.pop("processing_kwargs", None):
        raise InputValueError(f"processing_kwargs: expected None, found {value!r:.80}: set max_seq_length instead")
    refuse_others("encode", others)
    return inputs  # type: ignore[return-value]  # `check_texts` refuses None


def by_either_name(name: str, value: T | None, older: str, others: dict[str, Any]) -> T | None:
    """The value of an argument, given by its name or, in `others`, by its older name, which is removed there.

    Raises InputTypeError if both are given.
    """
    by_older: T | None = others.pop(older, None)
    if value is not None and by_older is not None:
        raise InputTypeError(f"{name}, {older}: expected one of them, found both: {older} is the older name of {name}")
    return by_older if value is None else value


def refuse_others(method: str, others: Mapping[str, object]) -> None:
    """Raise InputValueError for an argument that a method does not have."""
    if others:
        raise InputValueError(f"{method} has no argument {next(iter(others))!r}")


def check_encode(output_value: object, precision: object, device: object, pool: object, chunk_size: object) -> None:
    """Raise InputValueError for values that this package does not support."""
    check_choice("output_value", output_value, OUTPUT_VALUES)
    check_choice("precision", precision, (*PRECISIONS, None))
    if output_value is None and precision not in ("float32", None):
        raise InputValueError(f"precision: expected 'float32' with output_value=None, found {precision!r}")
    check_device(device)
    for name, value in (("pool", pool), ("chunk_size", chunk_size)):
        if value is not None:
            raise InputValueError(f"{name}: expected None, found {value!r:.80}: one process already uses all CPUs")


def check_device(device: object) -> None:
    """Raise InputValueError unless the device is None or the CPU, as a str or a torch.device."""
    if device is not None and str(device) != "cpu":
        raise InputValueError(f"device: expected 'cpu' or None, found {device!r:.80}: this package runs on CPUs")


def check_safe_serialization(safe_serialization: bool) -> None:
    """Raise InputValueError if a model is to be saved as a pickle."""
    if not safe_serialization:
        raise InputValueError(
            "safe_serialization: expected True, found False: pickled weights can run code, and are never written"
        )


# ---- attributes ------------------------------------------------------------------------------------------------------
# torch is never imported here: an object of torch exists only if the caller has imported it.


class Device(str):
    """The name of a device: a str that is also equal to the `torch.device` of that name."""

    __slots__ = ()
    __hash__ = str.__hash__  # not that of the torch.device: one of them must differ

    @property
    def type(self) -> str:
        """The kind of device, as of a `torch.device`."""
        return str(self)

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, str(other) if _is_torchs("device", other) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other


CPU = Device("cpu")


class ModelCardData:
    """Accepts the metrics that sentence-transformers' evaluators store for a model card, which is never written."""

    def set_evaluation_metrics(
        self, evaluator: object, metrics: Mapping[str, object], epoch: int = 0, step: int = 0
    ) -> None:
        """Discard the metrics; the evaluator returns them, too."""


class Tensor(Protocol):
    """A torch tensor, for type checkers."""

    def detach(self) -> Any: ...


def as_given(scores: Any, *embeddings: object) -> Any:
    """Scores as a torch tensor if all embeddings are tensors; otherwise unchanged."""
    if all(_is_torchs("Tensor", each) for each in embeddings):
        return sys.modules["torch"].as_tensor(scores)
    return scores


def _is_torchs(name: str, value: object) -> bool:
    kind = getattr(sys.modules.get("torch"), name, None)
    return kind is not None and isinstance(value, kind)
