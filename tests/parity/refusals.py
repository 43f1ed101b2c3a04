"""What is refused, and the words of each error. A test makes every attempt; the page lists the words."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minilm_np import (
    CheckpointError,
    ConfigError,
    CrossEncoder,
    InputTypeError,
    InputValueError,
    SentenceEncoder,
    TokenizerError,
    explain,
    util,
    verify,
)
from minilm_np.model_files.folder_config import load_config
from minilm_np.model_files.random_weights import SMALL
from minilm_np.train.engine import TrainingEngine
from minilm_np.verify import conformance
from tests.support import config_folders as folders

Attempt = Callable[[Path], object]  # given an empty folder


class Refusal(NamedTuple):
    """One line of the list."""

    what: str
    kind: type[Exception]
    words: str  # of the error
    attempt: Attempt


def _encoder_config(**changes: Any) -> Attempt:
    return lambda folder: load_config(folders.write(folder, {folders.CONFIG: folders.bert(**changes)}))


def _files(**contents: Any) -> Attempt:
    """Load the config of a folder with some files replaced; the names are those of `config_folders`."""
    return lambda folder: load_config(
        folders.write(folder, {getattr(folders, name): content for name, content in contents.items()})
    )


def _dense(**changes: Any) -> Attempt:
    values = {"in_features": 32, "out_features": 8, "bias": True} | changes
    files = {folders.MODULES: folders.modules("Pooling", "Dense"), "2_Dense/config.json": values}
    return lambda folder: load_config(folders.write(folder, files))


def _changed(file: str, model: Any = SentenceEncoder, **changes: Any) -> Attempt:
    """Load the folder of a model, of this class, after a change of a JSON file."""

    def attempt(folder: Path) -> object:
        model.random(backend="numpy").save_pretrained(folder)
        _change(folder / file, changes)
        return model(folder, backend="numpy")

    return attempt


def _change(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def _renamed(file: str, name: str) -> Attempt:
    """Load the folder of a sentence encoder after a file got another name."""

    def attempt(folder: Path) -> object:
        SentenceEncoder.random(backend="numpy").save_pretrained(folder)
        (folder / file).rename(folder / name)
        return SentenceEncoder(folder, backend="numpy")

    return attempt


def _dropout(folder: Path) -> object:
    """A BPE whose ids would be random."""
    from tests.support.other_tokenizers import trained_roberta

    SentenceEncoder.random(backend="numpy").save_pretrained(folder)
    tokenizer = trained_roberta()
    tokenizer.model.dropout = 0.1
    tokenizer.save(str(folder / "tokenizer.json"))
    return SentenceEncoder(folder, backend="numpy")


def _with(use: Callable[[SentenceEncoder, Path], object], **changes: Any) -> Attempt:
    """Use a random model with another config."""
    return lambda folder: use(SentenceEncoder.random(replace(SMALL, **changes), backend="numpy"), folder)


def _train(encoder: SentenceEncoder, folder: Path) -> object:
    return TrainingEngine(encoder.config, encoder.weights)


def _explain(encoder: SentenceEncoder, folder: Path) -> object:
    return explain.text(encoder, "a")


def _diagnose(encoder: SentenceEncoder, folder: Path) -> object:
    return verify.diagnose(encoder, encoder.encode(["a", "b"]), ["a", "b"])


def _conformance(encoder: SentenceEncoder, folder: Path) -> object:
    conformance.write(encoder, folder / "file.safetensors")
    return None


def _encode(texts: Any, **options: Any) -> Attempt:
    return lambda folder: SentenceEncoder.random(backend="numpy").encode(texts, **options)


def _open(**options: Any) -> Attempt:
    return lambda folder: SentenceEncoder(folder, **options)


def _sparse(folder: Path) -> object:
    from scipy.sparse import csr_array

    return util.cos_sim(csr_array(np.eye(2)), np.eye(2))


_DISTILBERT: dict[str, Any] = {"model_type": "distilbert", "type_vocab_size": 0}
_OTHER = "expected a model of type 'bert' with the activation 'gelu', found 'distilbert' with 'gelu'"
_MPNET: dict[str, Any] = {
    "model_type": "mpnet", "type_vocab_size": 0, "padding_idx": 1, "relative_attention_num_buckets": 32,
    "max_seq_length": 100,
}  # fmt: skip
_EXPLAINED = "expected a model of type 'bert' or 'distilbert' with the activation 'gelu', found"
_WITH_DENSE = "expected a model without a Dense module, found one with 10 outputs"

REFUSALS = [
    # files of a model
    Refusal(
        "another architecture", ConfigError, 'model_type "t5" is not implemented', _encoder_config(model_type="t5"),
    ),
    Refusal(
        "a head for a task", ConfigError, 'architectures ["BertForTokenClassification"] is not implemented',
        _encoder_config(architectures=["BertForTokenClassification"]),
    ),
    Refusal(
        "a cross-encoder in `SentenceEncoder`", ConfigError, "use minilm_np.CrossEncoder",
        _encoder_config(architectures=["BertForSequenceClassification"]),
    ),
    Refusal(
        "a sentence encoder in `CrossEncoder`", ConfigError, "found no classifier: use minilm_np.SentenceEncoder",
        _changed("config.json", CrossEncoder, architectures=["BertModel"]),
    ),
    Refusal(
        "a cross-encoder that is not BERT", ConfigError, 'model_type "roberta" is not implemented',
        _changed("config.json", CrossEncoder, model_type="roberta"),
    ),
    Refusal(
        "another activation of a cross-encoder", ConfigError,
        'activation_fn "torch.nn.modules.activation.GELU" is not implemented',
        _changed("config_sentence_transformers.json", CrossEncoder, activation_fn="torch.nn.modules.activation.GELU"),
    ),
    Refusal(
        "another activation", ConfigError, 'hidden_act "quick_gelu" is not implemented',
        _encoder_config(hidden_act="quick_gelu"),
    ),
    Refusal(
        "BERT with relative positions", ConfigError, 'position_embedding_type "relative_key" is not implemented',
        _encoder_config(position_embedding_type="relative_key"),
    ),
    Refusal("a decoder", ConfigError, "is_decoder true is not implemented", _encoder_config(is_decoder=True)),
    Refusal(
        "a quantized checkpoint", ConfigError, 'quantization_config {"bits": 4} is not implemented',
        _encoder_config(quantization_config={"bits": 4}),
    ),
    Refusal(
        "two poolings at once", ConfigError, 'the pooling ["cls", "mean"] is not implemented',
        _files(POOLING=folders.MEAN | {folders.FLAGS["cls"]: True}),
    ),
    Refusal(
        "another module", ConfigError, "'LSTM' is not implemented", _files(MODULES=folders.modules("Pooling", "LSTM")),
    ),
    Refusal(
        "two `Dense` modules", ConfigError, "found Transformer, Pooling, Dense, Dense",
        _files(MODULES=folders.modules("Pooling", "Dense", "Dense")),
    ),
    Refusal(
        "another activation of `Dense`", ConfigError,
        'activation_function "torch.nn.modules.activation.ReLU" is not implemented',
        _dense(activation_function="torch.nn.modules.activation.ReLU"),
    ),
    Refusal(
        "another task of the Transformer module", ConfigError, 'transformer_task "fill-mask" is not implemented',
        _files(SENTENCE={"transformer_task": "fill-mask"}),
    ),
    Refusal(
        "another similarity function", ConfigError, "similarity_fn_name 'maxsim' is not implemented",
        _changed("config_sentence_transformers.json", similarity_fn_name="maxsim"),
    ),
    Refusal(
        "pickled weights", CheckpointError, "found pytorch_model.bin, which is a pickle: it is not read",
        _renamed("model.safetensors", "pytorch_model.bin"),
    ),
    Refusal(
        "a vocabulary of SentencePiece alone", TokenizerError,
        "found sentencepiece.bpe.model, which is not read: write tokenizer.json with",
        _renamed("tokenizer.json", "sentencepiece.bpe.model"),
    ),
    Refusal(
        "truncation at the start of a text", TokenizerError, "truncation_side 'left' is not implemented",
        _changed("tokenizer_config.json", truncation_side="left"),
    ),
    Refusal("a tokenizer with random ids", TokenizerError, "model: dropout: expected null, found 0.1", _dropout),
    # calls
    Refusal("another device", InputValueError, "device: expected 'cpu' or None, found 'cuda'", _open(device="cuda")),
    Refusal("a revision of a model", InputValueError, "revision: expected None, found 'main'", _open(revision="main")),
    Refusal(
        "a pair of texts in `encode`", InputTypeError, "text 0: expected a str, found tuple", _encode([("a", "b")]),
    ),
    Refusal(
        "a lone surrogate", InputValueError, "text 0: the lone surrogate U+D800 at character 1", _encode(["a\ud800"]),
    ),
    Refusal("sparse vectors in `util`", InputTypeError, "expected dense vectors, found a sparse csr_array", _sparse),
    # other models than BERT
    Refusal("training another encoder than BERT", ConfigError, _OTHER, _with(_train, **_DISTILBERT)),
    Refusal(
        "`explain` of another encoder", ConfigError, f"{_EXPLAINED} 'mpnet' with 'gelu'", _with(_explain, **_MPNET),
    ),
    Refusal(
        "`explain` with another activation", ConfigError, f"{_EXPLAINED} 'bert' with 'relu'",
        _with(_explain, hidden_act="relu"),
    ),
    Refusal("`diagnose` with another encoder", ConfigError, _OTHER, _with(_diagnose, **_DISTILBERT)),
    Refusal("`conformance` of another encoder", ConfigError, _OTHER, _with(_conformance, **_DISTILBERT)),
    Refusal("training with a `Dense` module", ConfigError, _WITH_DENSE, _with(_train, dense_size=10)),
    Refusal("`explain` with a `Dense` module", ConfigError, _WITH_DENSE, _with(_explain, dense_size=10)),
    Refusal("`diagnose` with a `Dense` module", ConfigError, _WITH_DENSE, _with(_diagnose, dense_size=10)),
    Refusal("`conformance` with a `Dense` module", ConfigError, _WITH_DENSE, _with(_conformance, dense_size=10)),
]  # fmt: skip
