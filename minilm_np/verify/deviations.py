"""The known deviations: ways in which another implementation differs from the model, by the name that a diagnosis uses.

A deviation is one entry: a name, a kind, what is done, what to do, and a change of a `Variation`. No deviation copies
the reference. It changes what goes into it (token ids, padding, masks, weights, config), replaces a function in a
private second instance of the module, or changes what is made of its hidden states. The shared module is never changed,
so deviations may run in several threads.

A new deviation is one entry in one of these files, and its torch twin in tests/support/torch_deviations.py.
"""

from minilm_np.model_files.config import ModelConfig
from minilm_np.verify import input_deviations, model_deviations, pooling_deviations, text_deviations
from minilm_np.verify.variations import Deviation


def deviations(config: ModelConfig) -> list[Deviation]:
    """Return all known deviations from a model with this config. `fitting.py` finds further ones with a number."""
    return [
        *model_deviations.activations(),
        *text_deviations.truncations(config),
        *input_deviations.paddings(config),
        *pooling_deviations.poolings(config),
        *text_deviations.tokenizers(),
        *input_deviations.masks(config),
        *model_deviations.encoders(config),
        *model_deviations.weights(),
        *text_deviations.prompts(),
    ]
