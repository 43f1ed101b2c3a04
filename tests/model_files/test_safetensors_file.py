"""safetensors_file.py refuses malformed files: each is built byte by byte, one per refusal."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minilm_np.errors import CheckpointError
from minilm_np.model_files.checkpoint import load_checkpoint
from tests.support.checkpoint_files import (
    BIAS,
    CONFIG,
    POSITION,
    WORD,
    Header,
    in_folder,
    pack,
    random_weights,
    unpacked,
    valid,
)


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


def raw_header(old: bytes, new: bytes) -> bytes:
    header, data = unpacked(random_weights(CONFIG))
    text = json.dumps(header).encode()
    assert old in text
    return pack(text.replace(old, new, 1), data)


def prefixed(*prefixes: str) -> bytes:
    return pack(
        *unpacked({prefix + name: array for prefix in prefixes for name, array in random_weights(CONFIG).items()})
    )


def with_head(name: str) -> bytes:
    """The weights of a BERT with a head for another task."""
    weights = {f"bert.{each}": array for each, array in random_weights(CONFIG).items()}
    return pack(*unpacked(weights | {name: np.zeros(2, np.float32)}))


MALFORMED: dict[str, tuple[Callable[[], bytes], str]] = {
    # the frame
    "empty file": (lambda: b"", r"expected at least the 8 bytes of the header's length, found an empty file"),
    "7 bytes": (lambda: b"\0" * 7, r"expected at least the 8 bytes .* found 7 bytes: the file is truncated"),
    "length beyond the file": (
        lambda: pack(b"{}", length=3),
        r"the header's length: expected at most 2 in a file of 10 bytes, found 3: the file is truncated, or is not a "
        r"safetensors file",
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
    "no tensors": (lambda: pack(b"{}"), r"expected the tensors of a model, found none"),
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
        r"tensor 'embeddings\.position.*: expected a start at 0, found 40: it leaves a gap after the header",
    ),
    "hole in the middle": (
        lambda: edited(lambda header: [header.pop(POSITION)]),
        r"expected a start at 40, found 72: it leaves a gap after 'embeddings\.word_embeddings\.weight'",
    ),
    "cut short": (
        lambda: valid()[:-1],
        r": size: expected \d+ bytes, according to the header, found \d+: the file is truncated: d",
    ),
    "trailing bytes": (lambda: valid() + b"\0", r": size: expected \d+ bytes.*: there is data after the last tensor"),
    # which tensors there are
    "no word embeddings": (
        lambda: renamed(WORD, "wte.weight"),
        r"expected with exactly one of the prefixes '', 'bert\.', .*, found none: the file contains '",
    ),
    "unknown prefix": (
        lambda: prefixed("roberta."),
        r"found none: the file contains 'roberta\.embeddings\.LayerNorm",
    ),
    "two prefixes": (lambda: prefixed("", "bert."), r"found '' and 'bert\.'"),
    "missing": (
        lambda: renamed("encoder.layer.0.attention.self.query.weight", "encoder.layer.0.attention.self.query.qweight"),
        r"tensor 'encoder\.layer\.0\.attention\.self\.query\.weight' is missing: expected shape \(2, 2\), from config"
        r"\.json; found 21 tensors; those of this module: "
        r"'encoder\.layer\.0\.attention\.self\.query\..*', '.*\.qweight'",
    ),
    "missing under its prefix": (
        lambda: pack(*unpacked({n if n == BIAS else "bert." + n: a for n, a in random_weights(CONFIG).items()})),
        r"tensor 'bert\.encoder\.layer\.0\.output\.LayerNorm\.bias' is missing",
    ),
    "one layer more": (
        lambda: extended(encoder__layer__1__output__dense__bias=(2,)),
        r"1 unexpected tensors: 'encoder\.layer\.1\.output\.dense\.bias': the model of config\.json has 1 layers and",
    ),
    "unknown tensors": (
        lambda: extended(a=(1,), b=(1,), c=(1,), d=(1,), embeddings__foo=(1,)),
        r"5 unexpected tensors: 'a', 'b', 'c' and 2 more",
    ),
    "a head without the prefix": (
        lambda: extended(cls__predictions__bias=(5,)),
        r"1 unexpected tensors: 'cls\.predictions\.bias'",
    ),
    "a classifier": (
        lambda: with_head("classifier.weight"),
        r"1 unexpected tensors: 'classifier\.weight': the model of config\.json has 1 layers and no such tensors",
    ),
    "a head for spans": (lambda: with_head("qa_outputs.bias"), r"1 unexpected tensors: 'qa_outputs\.bias'"),
    "outside the prefix": (
        lambda: pack(
            *unpacked(
                {"2.linear.weight": np.zeros(1), **{f"0.auto_model.{n}": a for n, a in random_weights(CONFIG).items()}}
            )
        ),
        r"1 unexpected tensors: '2\.linear\.weight'",
    ),
    "gamma and weight": (
        lambda: extended(embeddings__LayerNorm__gamma=(2,)),
        r"\.gamma': expected only one of this and 'embeddings\.LayerNorm\.weight', found both",
    ),
    "wrong shape": (
        lambda: with_field("shape", [2, 5]),
        r"tensor 'embeddings\.word.*': expected shape \(5, 2\), from config\.json, found \(2, 5\)",
    ),
    "wrong rank": (lambda: with_field("shape", [10]), r"expected shape \(5, 2\), from config\.json, found \(10,\)"),
    "integers": (
        lambda: with_field("dtype", "I32"),
        r"tensor 'embeddings\.w.*: expected dtype F16, .*, found I32",
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


def test_a_header_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(pack(b"", length=10_000_001))
    os.truncate(path, 10_000_009)  # sparse
    with pytest.raises(CheckpointError, match="expected at most 10000000 in a file of 10000009 bytes, found 10000001"):
        load_checkpoint(tmp_path, CONFIG)


def test_names_from_a_file_are_escaped_and_cut(tmp_path: Path) -> None:
    name = "\x1b[2J" + "x" * 10_000
    with pytest.raises(CheckpointError, match=r"'\\x1b\[2Jx+\.\.\.x+'"):
        load_checkpoint(in_folder(tmp_path, edited(lambda header: header.update({name: 1}))), CONFIG)


def test_a_config_that_promises_two_billion_layers_ends_at_the_first_missing(tmp_path: Path) -> None:
    in_folder(tmp_path, valid())
    with pytest.raises(CheckpointError, match=r"'encoder\.layer\.1\..*' is missing.*of this module: none"):
        load_checkpoint(tmp_path, replace(CONFIG, num_hidden_layers=2**31 - 1))
