"""checkpoint.py: malformed files built byte by byte, one for each refusal; what loads is what the oracles read."""

import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np.errors import CheckpointError
from minilm_np.model_files import checkpoint
from minilm_np.model_files.checkpoint import load_checkpoint, parameter_shapes, write_checkpoint
from minilm_np.model_files.config import ModelConfig
from tests.support.places import CHECKOUT

CONFIG = ModelConfig(
    vocab_size=5,
    max_position_embeddings=4,
    type_vocab_size=2,
    hidden_size=2,
    num_hidden_layers=1,
    num_attention_heads=1,
    intermediate_size=3,
    max_seq_length=4,
)
WORD = "embeddings.word_embeddings.weight"  # (5, 2), the first in these files
POSITION = "embeddings.position_embeddings.weight"  # (4, 2), the second
BIAS = "encoder.layer.0.output.LayerNorm.bias"  # (2,), the last
SIZES = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}

Weights = dict[str, np.ndarray]
Header = dict[str, Any]


def random_weights(config: ModelConfig, seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}


def pack(header: Header | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file: the length of the header, the header, the data."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def unpacked(weights: Mapping[str, np.ndarray], dtype: str = "F32") -> tuple[Header, bytes]:
    """Header and data of arrays of one dtype (BF16: float32, rounded towards zero)."""
    header: Header = {}
    data = b""
    for name, array in weights.items():
        if dtype == "BF16":
            raw = (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        else:
            raw = array.astype(f"<f{SIZES[dtype]}").tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return header, data


def in_folder(folder: Path, content: bytes) -> Path:
    (folder / "model.safetensors").write_bytes(content)
    return folder


@contextmanager
def file_of(content: bytes) -> Iterator[Path]:
    """A folder with one model.safetensors, for tests that Hypothesis runs many times."""
    with tempfile.TemporaryDirectory() as folder:
        yield in_folder(Path(folder), content)


def assert_same_bits(loaded: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert list(loaded) == list(expected)
    for name, array in loaded.items():
        assert array.dtype == expected[name].dtype == np.float32
        assert array.shape == expected[name].shape, name
        assert array.tobytes() == expected[name].tobytes(), name


# ----------------------------------------------------------------------------------------------- what is promised


def test_parameter_shapes_are_those_of_bert_model() -> None:
    from transformers import BertConfig, BertModel

    bert = BertModel(
        BertConfig(
            vocab_size=5,
            max_position_embeddings=4,
            hidden_size=2,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=3,
        ),
        add_pooling_layer=False,
    )
    assert list(parameter_shapes(CONFIG).items()) == [(n, tuple(p.shape)) for n, p in bert.named_parameters()]


def test_the_published_model_has_22_million_parameters_without_its_pooler() -> None:
    shapes = parameter_shapes(ModelConfig())
    assert len(shapes) == 5 + 6 * 16
    assert sum(math.prod(shape) for shape in shapes.values()) == 22_713_216 - (384 * 384 + 384)


def test_arrays_are_owned_read_only_and_in_the_models_order(tmp_path: Path) -> None:
    weights = random_weights(CONFIG)
    header, data = unpacked(dict(sorted(weights.items())))
    loaded = load_checkpoint(in_folder(tmp_path, pack(header, data)), CONFIG)
    assert_same_bits(loaded, weights)
    for array in loaded.values():
        assert array.flags.owndata
        assert array.flags.c_contiguous
        assert array.flags.aligned
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_a_file_that_is_rewritten_or_cut_after_loading_changes_nothing(tmp_path: Path) -> None:
    weights = random_weights(CONFIG)
    loaded = load_checkpoint(in_folder(tmp_path, pack(*unpacked(weights))), CONFIG)
    with open(tmp_path / "model.safetensors", "r+b") as file:
        file.write(bytes(file.seek(0, os.SEEK_END)))
        file.truncate(3)
    assert_same_bits(loaded, weights)


def test_the_weights_lie_where_the_config_says(tmp_path: Path) -> None:
    (tmp_path / "0_Transformer").mkdir()
    in_folder(tmp_path / "0_Transformer", pack(*unpacked(random_weights(CONFIG))))
    config = replace(CONFIG, transformer_path="0_Transformer")
    assert len(load_checkpoint(tmp_path, config)) == 21


def test_a_tensor_larger_than_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_CHUNK", 3)
    weights = random_weights(CONFIG)
    for dtype in SIZES:
        loaded = load_checkpoint(in_folder(tmp_path, pack(*unpacked(weights, dtype))), CONFIG)
        assert_same_bits(loaded, {n: t.float().numpy() for n, t in oracle(tmp_path).items()})
    weights[POSITION][[1, 3], 0] = np.nan
    in_folder(tmp_path, pack(*unpacked(weights)))
    with pytest.raises(CheckpointError, match=r"found 2 of 8 NaN or infinite, the first at index \(1, 0\): nan"):
        load_checkpoint(tmp_path, CONFIG)


# ------------------------------------------------------------------------------------------------ what is accepted


def oracle(folder: Path) -> dict[str, torch.Tensor]:
    return dict(safetensors.torch.load_file(folder / "model.safetensors"))


def float_bits(dtype: str) -> st.SearchStrategy[int]:
    """Patterns of finite values, subnormals and signed zeros included; F64 within float32's range."""
    layout = {"F16": (5, 10), "BF16": (8, 7), "F32": (8, 23), "F64": (11, 52)}
    exponent_bits, fraction_bits = layout[dtype]
    top = 2**exponent_bits - 2 if dtype != "F64" else 1023 + 126
    return st.builds(
        lambda sign, exponent, fraction: (sign << exponent_bits | exponent) << fraction_bits | fraction,
        st.integers(0, 1),
        st.integers(0, top),
        st.integers(0, 2**fraction_bits - 1),
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_round_trip_equals_safetensors_torch(data: st.DataObject) -> None:
    heads = data.draw(st.integers(1, 3))
    config = ModelConfig(
        vocab_size=data.draw(st.integers(1, 9)),
        max_position_embeddings=data.draw(st.integers(2, 5)),
        type_vocab_size=data.draw(st.integers(1, 2)),
        hidden_size=heads * data.draw(st.integers(1, 3)),
        num_hidden_layers=data.draw(st.integers(1, 3)),
        num_attention_heads=heads,
        intermediate_size=data.draw(st.integers(1, 5)),
        max_seq_length=2,
    )
    prefix = data.draw(st.sampled_from(["", "bert.", "0.auto_model.", "0.model."]))
    names = data.draw(st.permutations(list(parameter_shapes(config))))
    n_shards = data.draw(st.integers(0, 3))  # 0: one file without an index
    header: list[Header] = [{} for _ in range(max(n_shards, 1))]
    body = [b"" for _ in header]
    for name in names:
        shape, dtype = parameter_shapes(config)[name], data.draw(st.sampled_from(list(SIZES)))
        some = data.draw(st.lists(float_bits(dtype), min_size=1, max_size=4))
        values = itertools.islice(itertools.cycle(some), math.prod(shape))
        raw = b"".join(value.to_bytes(SIZES[dtype], "little") for value in values)
        i = data.draw(st.integers(0, len(header) - 1))
        offsets = [len(body[i]), len(body[i]) + len(raw)]
        header[i][prefix + name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        body[i] += raw
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = [folder / f"model-{i + 1:05}-of-{n_shards:05}.safetensors" for i in range(n_shards)]
        if paths:
            weight_map = {name: path.name for path, tensors in zip(paths, header, strict=True) for name in tensors}
            (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        else:
            paths = [folder / "model.safetensors"]
        stored = {}
        for path, tensors, raw in zip(paths, header, body, strict=True):
            path.write_bytes(pack(tensors, raw))
            stored.update(safetensors.torch.load_file(path))
        loaded = load_checkpoint(folder, config)
    assert_same_bits(loaded, {name: stored[prefix + name].float().numpy() for name in parameter_shapes(config)})


@pytest.mark.parametrize(
    ("extra", "prefix"),
    [
        ({"embeddings.position_ids": "I64", "pooler.dense.weight": "F32", "pooler.dense.bias": "U8"}, ""),
        ({"bert.pooler.dense.bias": "F32", "cls.predictions.bias": "F32", "classifier.weight": "F16"}, "bert."),
        ({"0.auto_model.embeddings.position_ids": "I64"}, "0.auto_model."),
    ],
)
def test_what_inference_does_not_use_is_ignored(tmp_path: Path, extra: dict[str, str], prefix: str) -> None:
    weights = random_weights(CONFIG)
    header, data = unpacked({prefix + name: array for name, array in weights.items()})
    for name, dtype in extra.items():  # all bits set: NaN, where it is a float
        size = {"I64": 8, "F32": 4, "F16": 2, "U8": 1}[dtype]
        header[name] = {"dtype": dtype, "shape": [1], "data_offsets": [len(data), len(data) + size]}
        data += b"\xff" * size
    header["__metadata__"] = {"format": "pt"}
    assert_same_bits(load_checkpoint(in_folder(tmp_path, pack(header, data)), CONFIG), weights)


def test_layer_norm_gamma_and_beta_are_weight_and_bias(tmp_path: Path) -> None:
    weights = random_weights(CONFIG)
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in weights.items()
    }
    assert_same_bits(load_checkpoint(in_folder(tmp_path, pack(*unpacked(renamed))), CONFIG), weights)


@pytest.mark.parametrize("padding", range(5))
def test_a_header_padded_with_spaces_whatever_the_alignment(tmp_path: Path, padding: int) -> None:
    weights = random_weights(CONFIG)
    header, data = unpacked(weights)
    content = pack(json.dumps(header).encode() + b" " * padding, data)
    assert_same_bits(load_checkpoint(in_folder(tmp_path, content), CONFIG), weights)


def test_f64_is_rounded_to_nearest_and_may_underflow(tmp_path: Path) -> None:
    header, data = unpacked(random_weights(CONFIG), "F64")
    values = [1 + 2**-24, 1 + 3 * 2**-24, 1e-300, -1e-300, 1e-45, 3.4028235e38]
    data = np.array(values).tobytes() + data[8 * len(values) :]
    loaded = load_checkpoint(in_folder(tmp_path, pack(header, data)), CONFIG)[WORD]
    expected = np.array([1, 1 + 2**-22, 0.0, -0.0, 2**-149, np.finfo(np.float32).max], np.float32)
    assert loaded.reshape(-1)[:6].tobytes() == expected.tobytes()


def test_one_file_is_preferred_to_shards(tmp_path: Path) -> None:
    weights = random_weights(CONFIG)
    in_folder(tmp_path, pack(*unpacked(weights)))
    (tmp_path / "model.safetensors.index.json").write_text("not JSON")
    assert_same_bits(load_checkpoint(tmp_path, CONFIG), weights)


# -------------------------------------------------------------------------------- what is refused: the bytes of a file


def edited(change: Callable[[Header], object], dtype: str = "F32") -> bytes:
    """A valid file after a change to its header."""
    header, data = unpacked(random_weights(CONFIG), dtype)
    change(header)
    return pack(header, data)


def with_field(field: str, value: object, name: str = WORD) -> bytes:
    return edited(lambda header: header[name].update({field: value}))


def with_value(dtype: str, value: float, *indices: int) -> bytes:
    """A valid file of one dtype with a value at some places of the word embeddings."""
    weights = random_weights(CONFIG)
    for name in weights:
        weights[name] = weights[name].astype(np.float64 if dtype == "F64" else np.float32)
    weights[WORD].reshape(-1)[list(indices)] = value
    return pack(*unpacked(weights, dtype))


def renamed(old: str, new: str) -> bytes:
    header, data = unpacked(random_weights(CONFIG))
    return pack({new if name == old else name: entry for name, entry in header.items()}, data)


def extended(**shapes: tuple[int, ...]) -> bytes:
    """A valid file with further tensors."""
    more = {name.replace("__", "."): np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return pack(*unpacked({**random_weights(CONFIG), **more}))


def valid() -> bytes:
    return pack(*unpacked(random_weights(CONFIG)))


def raw_header(old: bytes, new: bytes) -> bytes:
    header, data = unpacked(random_weights(CONFIG))
    text = json.dumps(header).encode()
    assert old in text
    return pack(text.replace(old, new, 1), data)


def prefixed(*prefixes: str) -> bytes:
    return pack(
        *unpacked({prefix + name: array for prefix in prefixes for name, array in random_weights(CONFIG).items()})
    )


MALFORMED: dict[str, tuple[Callable[[], bytes], str]] = {
    # the frame
    "empty file": (lambda: b"", r"expected at least the 8 bytes of the header's length, found an empty file"),
    "7 bytes": (lambda: b"\0" * 7, r"expected at least the 8 bytes .* found 7 bytes: it was cut short"),
    "length beyond the file": (
        lambda: pack(b"{}", length=3),
        r"the header's length: expected at most 2 in a file of 10 bytes, found 3: it was cut short, or is not a safete",
    ),
    "length of 2**64 - 1": (
        lambda: b"\xff" * 64,
        r"expected at most 56 in a file of 64 bytes, found 18446744073709551615",
    ),
    "HTML page": (
        lambda: b"<!doctype html><html>",
        r"the header's length: expected at most 13 .*not a safetensors file",
    ),
    "no header": (lambda: pack(b""), r"the header's first byte: expected '\{', found b''"),
    "header begins with a space": (lambda: pack(b" {}"), r"first byte: expected '\{', found b' '"),
    "byte order mark": (lambda: pack(b"\xef\xbb\xbf{}"), r"first byte: expected '\{', found b'\\xef'"),
    "header is a list": (lambda: pack(b"[]"), r"first byte: expected '\{', found b'\['"),
    "not UTF-8": (lambda: pack(b'{"\xff": 1}'), r"expected JSON in UTF-8: 'utf-8' codec can't decode byte 0xff"),
    "UTF-16": (lambda: pack("{}".encode("utf-16-le")), r"expected JSON in UTF-8: Expecting property name"),
    "not JSON": (lambda: pack(b"{]"), r"expected JSON in UTF-8: Expecting property name"),
    "two JSON values": (lambda: pack(b"{}{}"), r"expected JSON in UTF-8: Extra data"),
    "NUL padding": (lambda: pack(b"{}\0\0"), r"expected JSON in UTF-8: Extra data"),
    "too deep": (lambda: pack(b'{"a":' + b"[" * 100_000), r"expected JSON in UTF-8: maximum recursion depth"),
    "a number of 5,000 digits": (
        lambda: pack(b'{"a":' + b"1" * 5000 + b"}"),
        r"expected JSON in UTF-8: Exceeds the limit",
    ),
    "no tensors": (lambda: pack(b"{}"), r"expected the model's tensors, found none"),
    # the header's names
    "name twice": (
        lambda: raw_header(POSITION.encode(), WORD.encode()),
        r"the key 'embeddings\.word_embeddings\.weight' occurs twice in one object",
    ),
    "name is no text": (
        lambda: pack(b'{"pooler.\\ud800": 1}'),
        r"expected JSON in UTF-8: 'utf-8' codec can't encode character '\\ud800' in position 7",
    ),
    "field twice": (
        lambda: raw_header(b'"dtype": "F32"', b'"dtype": "F32", "dtype": "F32"'),
        r"the key 'dtype' occurs twice in one object",
    ),
    "metadata null": (
        lambda: edited(lambda header: header.update(__metadata__=None)),
        r"__metadata__: expected an object of strings, found None",
    ),
    "metadata of a number": (
        lambda: edited(lambda header: header.update(__metadata__={"format": 1})),
        r"__metadata__: expected an object of strings, found \{'format': 1\}",
    ),
    # the fields of a tensor
    "entry is null": (
        lambda: edited(lambda header: header.update({WORD: None})),
        r"tensor 'embeddings\.word_embeddings\.weight': expected an object of dtype, shape and data_offs.*, found None",
    ),
    "no shape": (lambda: edited(lambda header: header[WORD].pop("shape")), r"expected an object of dtype, shape and"),
    "unknown field": (
        lambda: with_field("scale", 2),
        r"expected an object of dtype, shape and data_offsets, found \{.*sca",
    ),
    "dtype is a number": (lambda: with_field("dtype", 32), r"dtype: expected one of BOOL, .*, found 32"),
    "dtype is a list": (lambda: with_field("dtype", []), r"dtype: expected one of BOOL, .*, found \[\]"),
    "unknown dtype": (lambda: with_field("dtype", "f32"), r"dtype: expected one of BOOL, .*, found 'f32'"),
    "shape is a number": (
        lambda: with_field("shape", 10),
        r"shape: expected a list of at most 64 integers .*, found 10",
    ),
    "negative size": (lambda: with_field("shape", [-5, -2]), r"shape: expected .* from 1 to .*, found \[-5, -2\]"),
    "size zero": (lambda: with_field("shape", [5, 0]), r"shape: expected .* from 1 to .*, found \[5, 0\]"),
    "size is a float": (lambda: with_field("shape", [5.0, 2]), r"shape: expected .*, found \[5\.0, 2\]"),
    "size is NaN": (lambda: with_field("shape", [math.nan, 2]), r"shape: expected .*, found \[nan, 2\]"),
    "size is a bool": (lambda: with_field("shape", [10, True]), r"shape: expected .*, found \[10, True\]"),
    "size is a string": (lambda: with_field("shape", ["5", 2]), r"shape: expected .*, found \['5', 2\]"),
    "65 dimensions": (
        lambda: with_field("shape", [1] * 65),
        r"shape: expected a list of at most 64 .*, found \[1, 1, ",
    ),
    "size of 2**63": (
        lambda: with_field("shape", [2**63, 1]),
        r"shape: expected .* 2\*\*63 - 1, found \[9223372036854775808",
    ),
    "a product beyond 2**64": (
        lambda: with_field("shape", [2**62, 4]),
        r"data_offsets: expected 73786976294838206464 bytes, for F32 of shape \(4611686018427387904, 4\), found 40",
    ),
    "a product of 1,200 digits": (
        lambda: with_field("shape", [2**62] * 64),
        r"data_offsets: expected \d+\.\.\.\d+ bytes",
    ),
    "offsets are a number": (lambda: with_field("data_offsets", 40), r"data_offsets: expected integers .*, found 40"),
    "three offsets": (
        lambda: with_field("data_offsets", [0, 40, 40]),
        r"data_offsets: expected .*, found \[0, 40, 40\]",
    ),
    "offsets are floats": (
        lambda: with_field("data_offsets", [0, 4e1]),
        r"data_offsets: expected .*, found \[0, 40\.0\]",
    ),
    "offset is a bool": (
        lambda: with_field("data_offsets", [False, 40]),
        r"data_offsets: expected .*, found \[False, 40\]",
    ),
    "offsets reversed": (
        lambda: with_field("data_offsets", [40, 0]),
        r"data_offsets: expected .* a <= b, found \[40, 0\]",
    ),
    "offset negative": (lambda: with_field("data_offsets", [-40, 0]), r"data_offsets: expected .* 0 <= a.* \[-40, 0\]"),
    "size is not dtype times shape": (
        lambda: with_field("data_offsets", [0, 36]),
        r"data_offsets: expected 40 bytes, for F32 of shape \(5, 2\), found 36",
    ),
    # how the tensors cover the data
    "overlap": (
        lambda: with_field("data_offsets", [36, 68], POSITION),
        r"tensor 'embeddings\.position.*: expected a start at 40, found 36: it overlaps 'embeddings\.word",
    ),
    "same place": (
        lambda: with_field("data_offsets", [0, 32], POSITION),
        r"expected a start at \d+, found 0: it overlaps",
    ),
    "hole at the start": (
        lambda: edited(lambda header: [header.pop(WORD)]),
        r"tensor 'embeddings\.position.*: expected a start at 0, found 40: it leaves a hole after the header",
    ),
    "hole in the middle": (
        lambda: edited(lambda header: [header.pop(POSITION)]),
        r"expected a start at 40, found 72: it leaves a hole after 'embeddings\.word_embeddings\.weight'",
    ),
    "cut short": (
        lambda: valid()[:-1],
        r"its size: expected \d+ bytes, as the header says, found \d+: it was cut short: f",
    ),
    "trailing bytes": (lambda: valid() + b"\0", r"its size: expected \d+ bytes.*: something follows the last tensor"),
    # which tensors there are
    "no word embeddings": (
        lambda: renamed(WORD, "wte.weight"),
        r"expected it under exactly one of the prefixes '', 'bert\.', .*, found it under none: the file has '",
    ),
    "unknown prefix": (
        lambda: prefixed("roberta."),
        r"found it under none: the file has 'roberta\.embeddings\.LayerNorm",
    ),
    "two prefixes": (lambda: prefixed("", "bert."), r"found it under '' and 'bert\.'"),
    "missing": (
        lambda: renamed("encoder.layer.0.attention.self.query.weight", "encoder.layer.0.attention.self.query.qweight"),
        r"tensor 'encoder\.layer\.0\.attention\.self\.query\.weight' is missing: expected shape \(2, 2\), as config"
        r"\.json says; found 21 tensors, of this module 'encoder\.layer\.0\.attention\.self\.query\..*', '.*\.qweight'",
    ),
    "missing under its prefix": (
        lambda: pack(*unpacked({n if n == BIAS else "bert." + n: a for n, a in random_weights(CONFIG).items()})),
        r"tensor 'bert\.encoder\.layer\.0\.output\.LayerNorm\.bias' is missing",
    ),
    "one layer more": (
        lambda: extended(encoder__layer__1__output__dense__bias=(2,)),
        r"1 unexpected: 'encoder\.layer\.1\.output\.dense\.bias': the model of config\.json \(1 layers\) has no such",
    ),
    "unknown tensors": (
        lambda: extended(a=(1,), b=(1,), c=(1,), d=(1,), embeddings__foo=(1,)),
        r"5 unexpected: 'a', 'b', 'c' and 2 more",
    ),
    "a head without the prefix": (
        lambda: extended(cls__predictions__bias=(5,)),
        r"1 unexpected: 'cls\.predictions\.bias'",
    ),
    "outside the prefix": (
        lambda: pack(
            *unpacked(
                {"2.linear.weight": np.zeros(1), **{f"0.auto_model.{n}": a for n, a in random_weights(CONFIG).items()}}
            )
        ),
        r"1 unexpected: '2\.linear\.weight'",
    ),
    "gamma and weight": (
        lambda: extended(embeddings__LayerNorm__gamma=(2,)),
        r"tensor 'embeddings\.LayerNorm\.gamma': 'embeddings\.LayerNorm\.weight' is there too: expected only one",
    ),
    "wrong shape": (
        lambda: with_field("shape", [2, 5]),
        r"tensor 'embeddings\.word.*': expected shape \(5, 2\), as config\.json says, found \(2, 5\)",
    ),
    "wrong rank": (lambda: with_field("shape", [10]), r"expected shape \(5, 2\), as config\.json says, found \(10,\)"),
    "integers": (
        lambda: with_field("dtype", "I32"),
        r"tensor 'embeddings\.w.*: expected one of the dtypes F16, .*, found I32",
    ),
    # the values
    "NaN": (
        lambda: with_value("F32", math.nan, 3, 9),
        r"tensor 'embeddings\.w.*': expected finite values, found 2 of 10 NaN or infinite, the first at index \(1, 1\)",
    ),
    "infinity": (
        lambda: with_value("F32", -math.inf, 0),
        r"found 1 of 10 NaN or infinite, the first at index \(0, 0\): -inf",
    ),
    "NaN in F16": (lambda: with_value("F16", math.nan, 1), r"found 1 of 10 NaN or infinite, .* \(0, 1\): nan"),
    "infinity in BF16": (lambda: with_value("BF16", math.inf, 2), r"found 1 of 10 NaN or infinite, .* \(1, 0\): inf"),
    "NaN in F64": (lambda: with_value("F64", math.nan, 4), r"found 1 of 10 NaN or infinite, .* \(2, 0\): nan"),
    "beyond float32": (
        lambda: with_value("F64", -1e39, 5, 6),
        r"found 2 of 10 too large for float32, the first at index \(2, 1\): -1e\+39",
    ),
}


@pytest.mark.parametrize(("content", "message"), MALFORMED.values(), ids=list(MALFORMED))
def test_a_malformed_file_is_refused(tmp_path: Path, content: Callable[[], bytes], message: str) -> None:
    folder = in_folder(tmp_path, content())
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(folder, CONFIG)
    assert str(caught.value).startswith(str(folder / "model.safetensors"))
    assert len(str(caught.value)) < 1000


def test_a_header_beyond_the_formats_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(pack(b"", length=100_000_001))
    os.truncate(path, 100_000_009)  # sparse
    with pytest.raises(
        CheckpointError, match="expected at most 100000000 in a file of 100000009 bytes, found 100000001"
    ):
        load_checkpoint(tmp_path, CONFIG)


def test_names_from_a_file_are_escaped_and_cut(tmp_path: Path) -> None:
    name = "\x1b[2J" + "x" * 10_000
    with pytest.raises(CheckpointError, match=r"'\\x1b\[2Jx+\.\.\.x+'"):
        load_checkpoint(in_folder(tmp_path, edited(lambda header: header.update({name: 1}))), CONFIG)


def test_a_config_that_promises_two_billion_layers_ends_at_the_first_missing(tmp_path: Path) -> None:
    in_folder(tmp_path, valid())
    with pytest.raises(CheckpointError, match=r"'encoder\.layer\.1\..*' is missing.*of this module none"):
        load_checkpoint(tmp_path, replace(CONFIG, num_hidden_layers=2**31 - 1))


# -------------------------------------------------------------------------------- what is refused: the files themselves


def test_no_weights(tmp_path: Path) -> None:
    message = r"expected model\.safetensors or model\.safetensors\.index\.json, found neither$"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path, CONFIG)
    with pytest.raises(CheckpointError, match=r"found no such folder$"):
        load_checkpoint(tmp_path / "nowhere", CONFIG)


def test_only_a_pickle(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"found pytorch_model\.bin, which is not read.*pickle.*convert it"):
        load_checkpoint(tmp_path, CONFIG)


def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read: Is a directory"):
        load_checkpoint(tmp_path, CONFIG)


def test_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to("nowhere")
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read: No such file or directory"):
        load_checkpoint(tmp_path, CONFIG)


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_a_fifo_does_not_hang(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    caught: list[BaseException] = []

    def load() -> None:
        try:
            load_checkpoint(tmp_path, CONFIG)
        except CheckpointError as error:
            caught.append(error)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert [str(error) for error in caught] == [f"{tmp_path / name} is not a regular file: expected a file of weights"]


def test_a_file_without_permission(tmp_path: Path) -> None:
    (in_folder(tmp_path, valid()) / "model.safetensors").chmod(0)
    tmp_path.chmod(0o755)
    # in a child without root's rights; it stands in the folder, whose parents may be closed to it
    code = """
        import os, sys
        from pathlib import Path
        from minilm_np.model_files.checkpoint import load_checkpoint
        from minilm_np.model_files.config import ModelConfig
        from minilm_np.errors import CheckpointError
        os.chdir(sys.argv[1])
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        try:
            load_checkpoint(Path("."), ModelConfig())
        except CheckpointError as error:
            print(error)
    """
    root = CHECKOUT
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout == "model.safetensors cannot be read: Permission denied\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda path: os.truncate(path, path.stat().st_size - 5),
            r"was cut short while it was being read: [1-8] bytes are mi",
        ),
        (lambda path: path.write_bytes(valid() + b"more"), "changed while it was being read: load the model again"),
        (lambda path: os.utime(path, (0, 0)), "changed while it was being read: load the model again"),
    ],
    ids=["cut", "grown", "rewritten"],
)
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], message: str
) -> None:
    in_folder(tmp_path, valid())
    match = checkpoint._match

    def match_then_change(*args: Any) -> Any:
        change(tmp_path / "model.safetensors")
        return match(*args)

    monkeypatch.setattr(checkpoint, "_match", match_then_change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path, CONFIG)


# --------------------------------------------------------------------------------------------------------- shards


def sharded(folder: Path, edit: Callable[[dict[str, str]], object] = lambda weight_map: None) -> Weights:
    """a.safetensors and b.safetensors, with an index after an edit."""
    weights = random_weights(CONFIG)
    weight_map = {name: "ab"[i % 2] + ".safetensors" for i, name in enumerate(weights)}
    for shard in ("a.safetensors", "b.safetensors"):
        tensors = {name: array for name, array in weights.items() if weight_map[name] == shard}
        (folder / shard).write_bytes(pack(*unpacked(tensors)))
    edit(weight_map)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return weights


def test_shards(tmp_path: Path) -> None:
    weights = sharded(tmp_path)
    assert_same_bits(load_checkpoint(tmp_path, CONFIG), weights)


@pytest.mark.parametrize(
    "shard",
    [
        *("../a.safetensors", "/a.safetensors", "x/a.safetensors", "x\\a.safetensors", "C:a.safetensors", "..", ""),
        *("a.bin", "a.safetensors\n", "a\0.safetensors", "\ud800.safetensors", None, 1, ["a.safetensors"]),
    ],
    ids=repr,
)
def test_an_index_names_files_beside_it_and_nothing_else(tmp_path: Path, shard: object) -> None:
    sharded(tmp_path, lambda weight_map: weight_map.update({WORD: shard}))  # type: ignore[dict-item]
    message = r"index\.json: tensor 'embeddings\.word_.*: expected the name of a \.safetensors file beside the index"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"expected JSON in UTF-8: Expecting value"),
        (b"[]", r"expected an object with an object 'weight_map', found \[\]"),
        (b"{}", r"expected an object with an object 'weight_map', found \{\}"),
        (b'{"weight_map": []}', r"expected an object with an object 'weight_map', found"),
        (b'{"weight_map": {}}', r"expected the model's tensors, found none"),
        (b'{"weight_map": {"a": "a.safetensors", "a": "b.safetensors"}}', r"the key 'a' occurs twice in one object"),
    ],
)
def test_a_malformed_index(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json: " + message):
        load_checkpoint(tmp_path, CONFIG)


def test_an_index_too_large(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").touch()
    os.truncate(tmp_path / "model.safetensors.index.json", 100_000_001)
    with pytest.raises(CheckpointError, match="its size: expected at most 100000000 bytes, found 100000001"):
        load_checkpoint(tmp_path, CONFIG)


def test_a_shard_that_is_missing(tmp_path: Path) -> None:
    sharded(tmp_path, lambda weight_map: weight_map.update(x="c.safetensors"))
    with pytest.raises(CheckpointError, match=r"c\.safetensors cannot be read: No such file"):
        load_checkpoint(tmp_path, CONFIG)


def test_a_tensor_that_is_not_where_the_index_says(tmp_path: Path) -> None:
    sharded(tmp_path, lambda weight_map: weight_map.update({WORD: "b.safetensors"}))
    message = (
        r"a\.safetensors: tensor 'embeddings\.word.*' stands there, where .*index\.json expects it: 'b\.safetensors'"
    )
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path, CONFIG)


def test_a_tensor_that_the_index_does_not_list(tmp_path: Path) -> None:
    sharded(tmp_path, lambda weight_map: weight_map.pop(WORD))
    with pytest.raises(
        CheckpointError, match=r"a\.safetensors: tensor 'embeddings\.word.*index\.json expects it: nowhere"
    ):
        load_checkpoint(tmp_path, CONFIG)


def test_a_tensor_that_the_index_alone_lists(tmp_path: Path) -> None:
    sharded(tmp_path, lambda weight_map: weight_map.update(x="b.safetensors"))
    with pytest.raises(
        CheckpointError, match=r"index\.json: tensor 'x': expected in b\.safetensors, where it is missing"
    ):
        load_checkpoint(tmp_path, CONFIG)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    weights = sharded(tmp_path)
    for shard in ("a.safetensors", "b.safetensors"):
        (tmp_path / shard).write_bytes(pack(*unpacked(weights)))
    with pytest.raises(CheckpointError, match=r"a\.safetensors: tensor '.*' stands there, where .*: 'b\.safetensors'"):
        load_checkpoint(tmp_path, CONFIG)


def test_a_shard_that_links_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    sharded(tmp_path / "model")
    (tmp_path / "model" / "b.safetensors").rename(tmp_path / "b.safetensors")
    (tmp_path / "model" / "b.safetensors").symlink_to("../b.safetensors")
    with pytest.raises(CheckpointError, match=r"b\.safetensors is a link that leads out of the model folder, to /"):
        load_checkpoint(tmp_path / "model", CONFIG)


def test_links_of_the_hugging_face_cache(tmp_path: Path) -> None:
    folder = tmp_path / "models--x--y" / "snapshots" / "0123abcd"
    blobs = tmp_path / "models--x--y" / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    weights = sharded(folder)
    for i, path in enumerate(list(folder.iterdir())):
        path.rename(blobs / str(i))
        path.symlink_to(f"../../blobs/{i}")
    assert_same_bits(load_checkpoint(folder, CONFIG), weights)
    (tmp_path / "elsewhere").symlink_to(folder)  # a folder that is a link itself
    assert_same_bits(load_checkpoint(tmp_path / "elsewhere", CONFIG), weights)


def test_a_single_file_may_be_a_link_to_anywhere(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(valid())
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").symlink_to(tmp_path / "weights")
    assert_same_bits(load_checkpoint(tmp_path / "model", CONFIG), random_weights(CONFIG))


# ---------------------------------------------------------------------------------------------------------- fuzzing


def test_every_cut_is_refused() -> None:
    content = valid()
    with file_of(content) as folder:
        for size in itertools.chain(range(40), range(40, len(content), 37)):
            (folder / "model.safetensors").write_bytes(content[:size])
            with pytest.raises(CheckpointError):
                load_checkpoint(folder, CONFIG)


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_a_damaged_file_loads_as_it_stands_or_is_refused(data: st.DataObject) -> None:
    """Flipped, removed and inserted bytes, wherever they are: a CheckpointError, or the very bytes."""
    header, body = unpacked(random_weights(CONFIG), data.draw(st.sampled_from(list(SIZES))))
    content = bytearray(pack(header, body))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "remove", "insert", "text"])):
            case "flip":
                content[at] ^= 1 << data.draw(st.integers(0, 7))
            case "remove":
                del content[at : at + data.draw(st.integers(1, 9))]
            case "insert":
                content[at:at] = data.draw(st.binary(min_size=1, max_size=9))
            case "text":
                content[at] = data.draw(st.sampled_from(b'{}[]",:0123456789-. eIN'))
    with file_of(bytes(content)) as folder:
        try:
            loaded = load_checkpoint(folder, CONFIG)
        except CheckpointError:
            return
        if b"-0" not in content:  # an integer to JSON, not to the library
            assert_same_bits(loaded, {n: t.float().numpy() for n, t in oracle(folder).items() if n in loaded})


# ---------------------------------------------------------------------------------------------------------- writing


def test_a_written_checkpoint_loads(tmp_path: Path) -> None:
    weights = random_weights(CONFIG)
    weights[WORD] = np.asfortranarray(weights[WORD])
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, {"pooler.scale": np.float32(3), **weights})  # type: ignore[dict-item]
    assert_same_bits(load_checkpoint(tmp_path, CONFIG), weights)
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.get_tensor("pooler.scale").shape == ()
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
    assert {entry.name for entry in tmp_path.iterdir()} == {"model.safetensors", "other"}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be written: "):
        write_checkpoint(path, {"a": np.zeros(2, "M8[s]")})
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]
    with pytest.raises(CheckpointError, match=r"cannot be written: .*No such file"):
        write_checkpoint(tmp_path / "nowhere" / "model.safetensors", random_weights(CONFIG))


# --------------------------------------------------------------------------------------------- the published weights


@pytest.mark.weights
def test_the_published_weights_are_those_that_the_library_reads(model_folder: Path) -> None:
    loaded = load_checkpoint(model_folder, ModelConfig())
    expected = safetensors.numpy.load_file(model_folder / "model.safetensors")
    assert_same_bits(loaded, {name: expected[name] for name in parameter_shapes(ModelConfig())})
    assert expected.keys() - loaded.keys() == {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}
