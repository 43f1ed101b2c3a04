"""The Dense module of a folder, such as LaBSE's 2_Dense: activation(x W^T + b) between pooling and normalisation.

Its weights are read by `checkpoint.py`.
"""

from pathlib import Path
from typing import Any

from minilm_np._checks import one_of
from minilm_np._files import shown
from minilm_np.errors import ConfigError

FOLDER = "2_Dense"  # its usual path

# our name -> the class that sentence-transformers 2 to 6 write
ACTIVATIONS = {"tanh": "torch.nn.modules.activation.Tanh", "identity": "torch.nn.modules.linear.Identity"}

_KEYS = frozenset(
    "in_features out_features bias activation_function module_input_name module_output_name use_residual".split()
)


def dense_fields(path: Path, values: dict[str, Any], hidden_size: int) -> dict[str, Any]:
    """The fields of ModelConfig for the `values` of a config.json at `path`. Raises ConfigError."""
    if unknown := values.keys() - _KEYS:
        raise ConfigError(f"{path}: {min(unknown)!r:.80} is not implemented: expected {one_of(sorted(_KEYS))}")
    if values.get("in_features", hidden_size) != hidden_size:
        raise ConfigError(
            f"{path}: in_features: expected hidden_size, {hidden_size}, found {shown(values['in_features'])}"
        )
    if "out_features" not in values:
        raise ConfigError(f"{path}: out_features is missing")
    size = values["out_features"]
    if type(size) is not int or not 1 <= size < 2**31:
        raise ConfigError(f"{path}: out_features: expected an integer from 1 to 2**31 - 1, found {shown(size)}")
    bias = values.get("bias", True)
    if type(bias) is not bool:
        raise ConfigError(f"{path}: bias: expected true or false, found {shown(bias)}")
    for key, implemented in (
        ("module_input_name", "sentence_embedding"),
        ("module_output_name", "sentence_embedding"),
        ("use_residual", False),
    ):
        if values.get(key) not in (None, implemented):
            raise ConfigError(f"{path}: {key} {shown(values[key])} is not implemented: expected {shown(implemented)}")
    return {"dense_size": size, "dense_bias": bias, "dense_activation": _activation(path, values)}


def dense_config(hidden_size: int, size: int, bias: bool, activation: str) -> dict[str, Any]:
    """The config.json of a Dense module, as `dense_fields` reads it."""
    return {
        "in_features": hidden_size,
        "out_features": size,
        "bias": bias,
        "activation_function": ACTIVATIONS[activation],
    }


def _activation(path: Path, values: dict[str, Any]) -> str:
    """The name of the activation. Without the key, sentence-transformers uses tanh."""
    found = values.get("activation_function", ACTIVATIONS["tanh"])
    for name, full_name in ACTIVATIONS.items():
        # torch.nn.Tanh and torch.nn.modules.activation.Tanh are the same class
        if isinstance(found, str) and found in (full_name, f"torch.nn.{full_name.rpartition('.')[2]}"):
            return name
    raise ConfigError(
        f"{path}: activation_function {shown(found)} is not implemented: expected {one_of(ACTIVATIONS.values())}"
    )
