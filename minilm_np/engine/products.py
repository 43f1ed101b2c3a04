"""The dense products of an encoder layer.

Layers that read the same input form one product: their outputs are adjacent, in the order given here.
"""

from minilm_np.model_files.config import ModelConfig

# product -> the modules that it computes, named relative to `encoder.layer.<number>`
PRODUCTS = {
    "query_key_value": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention_output": ("attention.output.dense",),
    "intermediate": ("intermediate.dense",),
    "output": ("output.dense",),
}


def module_shape(product: str, config: ModelConfig) -> tuple[int, int]:
    """(outputs, inputs) of each module of a product, which is the shape of its weight in the checkpoint."""
    D, F = config.hidden_size, config.intermediate_size
    return F if product == "intermediate" else D, F if product == "output" else D
