"""The known deviations: ways in which another implementation differs from the model, by the name that a diagnosis uses.

No deviation copies the reference. It changes what goes into it (token ids, padding, masks, weights, config), or
replaces a function in a private second instance of the module. The shared module is never changed, so deviations may
run in several threads.
"""

from minilm_np.model_files.config import ModelConfig
from minilm_np.verify import input_deviations, model_deviations
from minilm_np.verify.variations import Deviation


def deviations(config: ModelConfig) -> list[Deviation]:
    """Return all known deviations from a model with this config."""
    return [
        *model_deviations.activations(),
        *input_deviations.truncations(config),
        *input_deviations.paddings(config),
        *input_deviations.poolings(config),
        *input_deviations.texts(),
        *model_deviations.encoders(config),
        *model_deviations.weights(),
    ]
