"""`ModelConfig`: everything that determines the vector of a text, except the weights and the vocabulary.

`folder_config.py` reads it from a model folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from minilm_np._checks import one_of
from minilm_np._files import shown
from minilm_np.errors import ConfigError
from minilm_np.model_files import dense_module
from minilm_np.model_files.families import FAMILIES

POOLING_MODES = ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

# of the feed-forward part, by transformers' names; the two with tanh are the same function
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that determines the vector of a text, except the weights and the vocabulary.

    The letters are those of `reference.py`. The defaults are those of all-MiniLM-L6-v2. Raises ConfigError.
    """

    # config.json: the encoder
    vocab_size: int = 30522  # V
    max_position_embeddings: int = 512  # P
    type_vocab_size: int = 2  # 0: there are no token types
    hidden_size: int = 384  # D
    num_hidden_layers: int = 6  # L
    num_attention_heads: int = 12  # H
    intermediate_size: int = 1536  # F
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"  # of the feed-forward part
    # what differs between the families
    model_type: str = "bert"  # the family, whose files have the keys and the tensors of `families.py`
    padding_idx: int | None = None  # positions begin at the next number and skip tokens with this id; None: at 0
    relative_attention_num_buckets: int = 0  # rows of the table of biases by relative position; 0: there is none

    # the other files: from token vectors to one vector
    max_seq_length: int = 256  # tokens per text, including [CLS] and [SEP]; longer texts are truncated
    pooling_mode: str = "mean"
    include_prompt: bool = True  # whether the tokens of a prompt are pooled
    normalize: bool = True  # the folder has a Normalize module
    do_lower_case: bool = False  # lower-case each text before tokenization, regardless of the tokenizer's options
    transformer_path: str = ""  # the subfolder with config.json and the weights; "" in every recent folder
    dense_size: int | None = None  # G, the numbers of a vector after a Dense module; None: the folder has none
    dense_bias: bool = True
    dense_activation: str = "tanh"  # or "identity"
    dense_path: str = dense_module.FOLDER

    def __post_init__(self) -> None:
        """Raise ConfigError for values that are impossible."""
        if self.model_type not in FAMILIES:
            raise ConfigError(f"model_type {shown(self.model_type)} is not implemented: expected {one_of(FAMILIES)}")
        for name in (
            "vocab_size",
            "max_position_embeddings",
            *(("type_vocab_size",) if "type_vocab_size" not in FAMILIES[self.model_type].fixed else ()),
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_seq_length",
        ):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value < 2**31:
                raise ConfigError(f"{name}: expected an integer from 1 to 2**31 - 1, found {shown(value)}")
        eps = self.layer_norm_eps
        if type(eps) not in (int, float) or not 0 < eps <= 1:  # also refuses NaN
            raise ConfigError(f"layer_norm_eps: expected a number above 0 and at most 1, found {shown(eps)}")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size: expected a multiple of num_attention_heads, {self.num_attention_heads}, "
                f"found {self.hidden_size}"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise ConfigError(f"hidden_act {shown(self.hidden_act)} is not implemented: expected {one_of(ACTIVATIONS)}")
        self._check_family()
        if self.pooling_mode not in POOLING_MODES:
            raise ConfigError(f"pooling_mode: expected {one_of(POOLING_MODES)}, found {shown(self.pooling_mode)}")
        self._check_dense()
        positions = self.max_position_embeddings
        if self.max_tokens < 2:
            least = 2 + positions - self.max_tokens
            raise ConfigError(
                f"max_position_embeddings: expected at least {least} ([CLS] and [SEP]), found {positions}"
            )
        if not 2 <= self.max_seq_length <= self.max_tokens:
            offset = "" if self.padding_idx is None else " - padding_idx - 1"
            raise ConfigError(
                f"max_seq_length: expected an integer from 2 ([CLS] and [SEP]) to {self.max_tokens} "
                f"(max_position_embeddings{offset}), found {self.max_seq_length}"
            )

    def _check_family(self) -> None:
        """Raise ConfigError for values that no model of this family has."""
        fixed, where = FAMILIES[self.model_type].fixed, f"in a model of type {self.model_type!r}"
        for name, value in fixed.items():
            found = getattr(self, name)
            if type(found) is not type(value) or found != value:
                raise ConfigError(f"{name}: expected {shown(value)} {where}, found {shown(found)}")
        index = self.padding_idx
        if "padding_idx" not in fixed and (type(index) is not int or not 0 <= index < self.vocab_size):
            raise ConfigError(f"padding_idx: expected a token id {where}, found {shown(index)}")

    def _check_dense(self) -> None:
        """Raise ConfigError for a Dense module that is impossible."""
        size = self.dense_size
        if size is not None and (type(size) is not int or not 1 <= size < 2**31):
            raise ConfigError(f"dense_size: expected an integer from 1 to 2**31 - 1, or None, found {shown(size)}")
        if self.dense_activation not in dense_module.ACTIVATIONS:
            raise ConfigError(
                f"dense_activation: expected {one_of(dense_module.ACTIVATIONS)}, found {shown(self.dense_activation)}"
            )

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest text for which the model has positions."""
        return self.max_position_embeddings - (0 if self.padding_idx is None else self.padding_idx + 1)

    @property
    def vector_size(self) -> int:
        """The numbers of a vector: D, or G after a Dense module."""
        return self.hidden_size if self.dense_size is None else self.dense_size

    @property
    def head_size(self) -> int:
        """E, the size of the query, key and value vectors of one head."""
        return self.hidden_size // self.num_attention_heads


def require_plain_bert(config: ModelConfig, what: str, types: Sequence[str] = ("bert",)) -> None:
    """Raise ConfigError unless the model is BERT with GELU and without Dense, for `what`: code for no other model.

    types: the values of `model_type` for which that code is written.
    """
    if config.model_type not in types or config.hidden_act != "gelu":
        raise ConfigError(
            f"{what}: expected a model of type {' or '.join(map(repr, types))} with the activation 'gelu', found "
            f"{config.model_type!r} with {config.hidden_act!r}: this is not implemented for other encoders"
        )
    require_no_dense(config, what)


def require_no_dense(config: ModelConfig, what: str) -> None:
    """Raise ConfigError if the model has a Dense module, for `what`: code that is not written for one."""
    if config.dense_size is not None:
        raise ConfigError(
            f"{what}: expected a model without a Dense module, found one with {config.dense_size} outputs: this is not "
            "implemented for it"
        )
