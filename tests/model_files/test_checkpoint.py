"""checkpoint.py: what loads is what safetensors and torch read; a damaged file is refused; what is written loads."""

import itertools
import json
import math
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm_np.errors import CheckpointError
from minilm_np.model_files import safetensors_file
from minilm_np.model_files.checkpoint import load_checkpoint, parameter_shapes, write_checkpoint
from minilm_np.model_files.config import ModelConfig
from tests.support.checkpoint_files import (
    CONFIG,
    POSITION,
    SIZES,
    WORD,
    Header,
    assert_same_bits,
    file_of,
    in_folder,
    oracle,
    pack,
    random_weights,
    unpacked,
    valid,
)

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
    monkeypatch.setattr(safetensors_file, "_CHUNK", 3)
    weights = random_weights(CONFIG)
    for dtype in SIZES:
        loaded = load_checkpoint(in_folder(tmp_path, pack(*unpacked(weights, dtype))), CONFIG)
        assert_same_bits(loaded, {n: t.float().numpy() for n, t in oracle(tmp_path).items()})
    weights[POSITION][[1, 3], 0] = np.nan
    in_folder(tmp_path, pack(*unpacked(weights)))
    with pytest.raises(CheckpointError, match=r"found 2 of 8 NaN or infinite, the first at index \(1, 0\): nan"):
        load_checkpoint(tmp_path, CONFIG)


# ------------------------------------------------------------------------------------------------ what is accepted


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
        ({"bert.pooler.dense.bias": "F32", "cls.predictions.bias": "F32", "cls.x": "F16"}, "bert."),
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
