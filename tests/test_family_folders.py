"""Folders of sentence-transformers with other tokenizers and modules: the vectors and the ids are those of upstream."""

import dataclasses
import json
import pickle
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from minilm_np import CheckpointError, ConfigError, ModelConfig, SentenceEncoder, TokenizerError
from minilm_np.explain import text as explain_text
from minilm_np.model_files.folder_config import load_config
from minilm_np.model_files.random_weights import SMALL
from minilm_np.train.engine import TrainingEngine
from minilm_np.verify.diagnose import diagnose
from tests.conftest import load_sentence_transformer
from tests.support import config_folders
from tests.support.compare import assert_close, assert_same_bits
from tests.support.other_tokenizers import SENTENCES, trained_mpnet, trained_roberta, trained_unigram

TEXTS = [*SENTENCES[:4], "", "ﬁ a<mask> b </s>", "  two  spaces\n", "longer than the limit is, " * 4]
ENGINES = [("numba", "float32"), ("numba", "int8"), ("numba", "int16"), ("numpy", "float32")]


def write(
    folder: Path,
    tokenizer: Tokenizer,
    tokenizer_class: str,
    *,
    pooling: dict[str, Any] | None = None,
    dense: dict[str, Any] | None = None,
    normalize: bool = True,
    options: dict[str, Any] | None = None,
) -> Any:
    """Let sentence-transformers write a random BERT with this tokenizer and these modules; return its model."""
    import torch
    from transformers import BertConfig, BertModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Dense, Normalize, Transformer
        from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(1)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
    config = BertConfig(vocab_size=450, max_position_embeddings=60, initializer_range=0.2, **sizes)  # type: ignore[arg-type]
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save(str(folder / "bert" / "tokenizer.json"))
    names = {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
    names |= {"unk_token": "[UNK]" if tokenizer_class == "MPNetTokenizer" else "<unk>"}
    values = {"tokenizer_class": tokenizer_class, "model_max_length": 40} | names | (options or {})
    (folder / "bert" / "tokenizer_config.json").write_text(json.dumps(values))
    modules: list[Any] = [Transformer(str(folder / "bert"), max_seq_length=40), Pooling(48, **(pooling or {}))]
    if dense is not None:
        modules.append(Dense(48, dense["size"], bias=dense["bias"], activation_function=dense["activation"]))
    model = SentenceTransformer(modules=modules + [Normalize()] * normalize, device="cpu")
    model.save_pretrained(str(folder / "model"))
    return model


# ---- tokenizers ------------------------------------------------------------------------------------------------------

TOKENIZERS: dict[str, tuple[Callable[[], Tokenizer], str, dict[str, Any]]] = {
    "multilingual MiniLM": (trained_unigram, "XLMRobertaTokenizer", {}),
    "RoBERTa": (trained_roberta, "RobertaTokenizer", {}),
    "RoBERTa with spaces": (trained_roberta, "RobertaTokenizer", {"add_prefix_space": True}),
    "MPNet": (trained_mpnet, "MPNetTokenizer", {}),
    "MPNet, cased": (trained_mpnet, "MPNetTokenizer", {"do_lower_case": False, "strip_accents": False}),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_other_tokenizers_give_the_ids_and_vectors_of_upstream(name: str, tmp_path: Path) -> None:
    make, tokenizer_class, options = TOKENIZERS[name]
    model = write(tmp_path, make(), tokenizer_class, options=options)
    encoder = SentenceEncoder(tmp_path / "model", backend="numpy")
    oracle = load_sentence_transformer(tmp_path / "model").tokenizer
    assert encoder.tokenizer(TEXTS).ids == oracle(TEXTS, truncation=True, max_length=40)["input_ids"]
    padded = oracle(TEXTS, truncation=True, max_length=40, padding=True)
    assert encoder.tokenize(TEXTS)["input_ids"].tolist() == padded["input_ids"]
    for role, token in encoder.tokenizer.special_tokens.items():
        assert getattr(oracle, role) == token
    assert_close(encoder.encode(TEXTS, on_truncation="ignore"), model.encode(TEXTS), rel=2e-6)
    encoder.save_pretrained(tmp_path / "saved")
    again, upstream = (
        SentenceEncoder(tmp_path / "saved", backend="numpy"),
        load_sentence_transformer(tmp_path / "saved"),
    )
    assert_same_bits(again.encode(TEXTS, on_truncation="ignore"), encoder.encode(TEXTS, on_truncation="ignore"))
    assert again.tokenizer.special_tokens == encoder.tokenizer.special_tokens
    assert_close(upstream.encode(TEXTS), model.encode(TEXTS), abs_=1e-6)


def test_what_the_package_does_around_a_unigram_tokenizer(tmp_path: Path) -> None:
    write(tmp_path, trained_unigram(), "XLMRobertaTokenizer")
    encoder = SentenceEncoder(tmp_path / "model", backend="numpy")
    text = SENTENCES[0] * 3
    (report,) = encoder.tokenize_report([text])
    assert report.truncated and report.n_tokens_used == 40 < report.n_tokens
    assert encoder.tokenizer([text[: report.n_characters_used]]).ids == encoder.tokenizer([text]).ids
    trace = encoder.trace(text)
    for token, (start, stop) in list(zip(trace.tokens, trace.offsets, strict=True))[1:-1]:
        assert token == "▁" or text[start:stop].strip() == token.strip("▁")
    windows = encoder.encode_long(text, pooling=None)
    assert len(windows) > 2 and windows[0].text.startswith("The cat") and windows[-1].text.endswith("stadium.")
    for window in windows:  # each begins with a word, so that its text alone has the same pieces
        assert_close(window.vector, encoder.encode(window.text), abs_=1e-6)
    assert explain_text(encoder, "The cat sat").page()
    assert encoder.trace("The cat").tokens[0] == "<s>"
    again = pickle.loads(pickle.dumps(encoder))
    assert_same_bits(again.encode(text, on_truncation="ignore"), encoder.encode(text, on_truncation="ignore"))
    texts = [sentence[:60] for sentence in SENTENCES] * 3
    assert diagnose(encoder, encoder.encode(texts, on_truncation="ignore"), texts) is not None


def test_a_vocabulary_of_sentencepiece_alone_is_refused_with_the_command(tmp_path: Path) -> None:
    write(tmp_path, trained_unigram(), "XLMRobertaTokenizer")
    (tmp_path / "model" / "tokenizer.json").rename(tmp_path / "model" / "sentencepiece.bpe.model")
    with pytest.raises(TokenizerError, match=r"found sentencepiece\.bpe\.model, .*AutoTokenizer\.from_pretrained"):
        SentenceEncoder(tmp_path / "model", backend="numpy")


# ---- Dense -----------------------------------------------------------------------------------------------------------


def dense(size: int, bias: bool, activation: str) -> dict[str, Any]:
    import torch

    function = torch.nn.Tanh() if activation == "tanh" else torch.nn.Identity()
    return {"size": size, "bias": bias, "activation": function}


@pytest.mark.parametrize(
    ("size", "bias", "activation", "normalize"),
    [(48, True, "tanh", True), (20, True, "tanh", False), (100, False, "identity", True)],
)
def test_a_dense_module_gives_the_vectors_of_upstream(
    size: int, bias: bool, activation: str, normalize: bool, tmp_path: Path
) -> None:
    model = write(
        tmp_path, trained_unigram(), "XLMRobertaTokenizer", pooling={"pooling_mode": "cls"},
        dense=dense(size, bias, activation), normalize=normalize,
    )  # fmt: skip
    expected = model.encode(TEXTS)
    assert expected.shape == (len(TEXTS), size)
    for backend, compute_type in ENGINES:
        encoder = SentenceEncoder(tmp_path / "model", backend=backend, compute_type=compute_type, threads=None)
        config = encoder.config
        assert (config.dense_size, config.dense_bias, config.dense_activation) == (size, bias, activation)
        assert encoder.get_embedding_dimension() == size
        found = encoder.encode(TEXTS, on_truncation="ignore")
        # the training of the vocabulary draws another one each time; 8 bits are coarse for random weights
        bound = {"int8": 0.2, "int16": 1e-3}.get(compute_type, 2e-6)
        assert_close(found, expected, rel=bound, what=f"{backend} {compute_type}")
        if backend == "numba":
            alone = np.stack([encoder.encode(text, on_truncation="ignore") for text in TEXTS])
            one = SentenceEncoder(tmp_path / "model", compute_type=compute_type, threads=1)
            assert_same_bits(alone, found)
            assert_same_bits(one.encode(TEXTS, on_truncation="ignore"), found)
            assert_same_bits(pickle.loads(pickle.dumps(encoder)).encode(TEXTS[4:6]), found[4:6])
        encoder.save_pretrained(tmp_path / f"saved {backend} {compute_type}")
        again = SentenceEncoder(
            tmp_path / f"saved {backend} {compute_type}", backend=backend, compute_type=compute_type
        )
        assert again.config == encoder.config
        assert_same_bits(again.encode(TEXTS, on_truncation="ignore"), found)
        steps = encoder.trace(TEXTS[0], backend=backend if compute_type == "float32" else "numpy")
        assert steps["dense"].shape == (size,) and steps.dimensions["dense"] == "G"
        if compute_type == "float32":
            assert_close(steps["normalize" if normalize else "dense"], expected[0], rel=2e-6)
    upstream = load_sentence_transformer(tmp_path / "saved numba float32")
    assert_close(upstream.encode(TEXTS), expected, rel=2e-6)


def test_what_is_not_written_for_a_dense_module_is_refused_by_name() -> None:
    encoder = SentenceEncoder.random(dataclasses.replace(SMALL, dense_size=10), backend="numpy")
    calls: list[Callable[[], object]] = [
        lambda: explain_text(encoder, "a"),
        lambda: diagnose(encoder, encoder.encode(["a", "b"]), ["a", "b"]),
        lambda: TrainingEngine(encoder.config, encoder.weights),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=r": expected a model without a Dense module, found one with 10 outputs"):
            call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"activation_function": "torch.nn.modules.activation.ReLU"},
            "activation_function .*ReLU.* is not implemented",
        ),
        ({"activation_function": "evil.Tanh"}, "activation_function .*evil.* is not implemented"),
        ({"in_features": 47}, "in_features: expected hidden_size, 32, found 47"),
        ({"out_features": 0}, "out_features: expected an integer from 1 to .*, found 0"),
        ({"out_features": None}, "out_features: expected an integer from 1 to .*, found null"),
        ({"bias": 1}, "bias: expected true or false, found 1"),
        ({"use_residual": True}, "use_residual true is not implemented: expected false"),
        ({"module_input_name": "token_embeddings"}, "module_input_name .* is not implemented"),
        ({"dropout": 0.1}, "'dropout' is not implemented"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_dense_module_that_is_not_implemented_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    values = {"in_features": 32, "out_features": 8, "bias": True} | change
    files = {config_folders.MODULES: config_folders.modules("Pooling", "Dense"), "2_Dense/config.json": values}
    with pytest.raises(ConfigError, match=f"2_Dense/config.json: {message}"):
        load_config(config_folders.write(tmp_path, files))


def test_broken_weights_of_a_dense_module_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    encoder = SentenceEncoder.random(dataclasses.replace(SMALL, dense_size=10), backend="numpy")
    encoder.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "2_Dense" / "model.safetensors"
    arrays = load_file(path)
    for changed, message in (
        ({"linear.weight": arrays["linear.weight"]}, "expected the tensors 'linear.weight', 'linear.bias'"),
        (arrays | {"linear.bias": np.zeros(9, np.float32)}, r"tensor 'linear.bias': expected shape \(10,\)"),
        (arrays | {"more": np.zeros(9, np.float32)}, "expected the tensors"),
    ):
        save_file(changed, path)
        with pytest.raises(CheckpointError, match=message):
            SentenceEncoder(tmp_path / "model", backend="numpy")


# ---- prompts that are not pooled -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
def test_a_prompt_is_left_out_of_the_pooling_as_upstream(mode: str, tmp_path: Path) -> None:
    model = write(
        tmp_path, trained_unigram(), "XLMRobertaTokenizer",
        pooling={"pooling_mode": mode, "include_prompt": False}, normalize=mode != "max",
    )  # fmt: skip
    texts, prompt = [text for text in TEXTS if text], "Represent the sentence: "
    expected, plain = model.encode(texts, prompt=prompt), model.encode(texts)
    for backend, compute_type in ENGINES[:1] + ENGINES[3:]:
        encoder = SentenceEncoder(tmp_path / "model", backend=backend, compute_type=compute_type)
        assert encoder.config.include_prompt is False
        found = encoder.encode(texts, prompt=prompt, on_truncation="ignore")
        assert_close(found, expected, rel=2e-6, what=backend)
        assert_close(encoder.encode(texts, on_truncation="ignore"), plain, rel=2e-6, what=backend)
        assert_close(encoder.encode_long(texts[4], prompt=prompt), found[4], rel=1e-6)  # it fits into one window
        if backend == "numba":
            alone = [encoder.encode(text, prompt=prompt, on_truncation="ignore") for text in texts]
            assert_same_bits(np.stack(alone), found)
        features = encoder.encode(texts[0], prompt=prompt, output_value=None, on_truncation="ignore")
        theirs = model.encode(texts[0], prompt=prompt, output_value=None)
        assert features["prompt_length"] == theirs["prompt_length"]
    encoder.save_pretrained(tmp_path / "saved")
    assert load_config(tmp_path / "saved") == encoder.config


# ---- pickled weights -------------------------------------------------------------------------------------------------


def test_a_folder_with_pickled_weights_is_refused_with_a_command_that_converts_it(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    model = write(tmp_path, trained_unigram(), "XLMRobertaTokenizer", dense=dense(10, True, "tanh"))
    for module in ("", "2_Dense"):
        path = tmp_path / "model" / module / "model.safetensors"
        torch.save(load_file(path), path.with_name("pytorch_model.bin"))
        path.unlink()
    with pytest.raises(
        CheckpointError, match=r"found pytorch_model\.bin, which is a pickle: it is not read"
    ) as refusal:
        SentenceEncoder(tmp_path / "model", backend="numpy")
    command = shlex.split(str(refusal.value).rpartition("new folder: ")[2])
    subprocess.run([sys.executable, *command[1:]], check=True, capture_output=True)
    converted = SentenceEncoder(tmp_path / "model-safetensors", backend="numpy")
    assert_close(converted.encode(TEXTS[4:6]), model.encode(TEXTS[4:6]), rel=2e-6)


def test_poolings_have_the_names_of_upstream() -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    from minilm_np.model_files.config import POOLING_MODES

    assert set(POOLING_MODES) == set(Pooling.POOLING_MODES)
    assert ModelConfig(pooling_mode="lasttoken").vector_size == 384
