"""Compare the output of another implementation with a conformance file: tensors under its names, or token ids."""

import io
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from minilm_np._checks import short_repr
from minilm_np._files import MAX_ARRAYS, bounded_lines, open_regular
from minilm_np.errors import InputValueError
from minilm_np.model_files.tensors import read_arrays
from minilm_np.reference import Array
from minilm_np.verify.conformance import Check, Conformance, differing
from minilm_np.verify.conformance_file import error_of, kind_of, line_ids, read

Path = str | os.PathLike[str]


def check_port(path: Path, port: Path) -> Conformance:
    """Compare what a port has written with a conformance file. No model is needed.

    port: a .safetensors file with any part of the tensors of the conformance file, under the same names; or a .jsonl
        file with one object {"text": ..., "ids": [...]} per line, for any part of the texts and lines of the file. A
        pair also has "text_pair".

    An array under a name with `float32` must be within the tolerance for float32, one with `float64` within that for
    float64. Raises OSError, InputValueError (one of the files is broken, or has something that cannot be compared).
    """
    arrays, manifest = read(path)
    if os.fspath(port).endswith(".jsonl"):
        rows = list(_ids(path, port, arrays, manifest))
        if not rows:
            raise InputValueError(f"{port}: expected at least one text with its ids, found none")
        return Conformance(os.fspath(path), manifest, rows)
    found, _ = read_arrays(port)
    for name in found if found else ("no tensor",):
        if name not in arrays:
            raise InputValueError(
                f"{port}: expected tensors with names of {path}, found {short_repr(name)}: see CONFORMANCE.md"
            )
        if name.endswith(("ids", "offsets")) and found[name].dtype.kind not in "iu":
            raise InputValueError(f"{port}: tensor {name!r}: expected integers, found {found[name].dtype}")
    if ("tokenizer_lines.ids" in found) != ("tokenizer_lines.offsets" in found):
        raise InputValueError(
            f"{port}: expected the tensors 'tokenizer_lines.ids' and 'tokenizer_lines.offsets', found one of them"
        )
    names = sorted(found, key=lambda name: _place(name, manifest))
    return Conformance(
        os.fspath(path), manifest, [row for name in names for row in _tensor(name, found, arrays, manifest, port)]
    )


def _place(name: str, manifest: Mapping[str, Any]) -> tuple[int, int, str]:
    """The place of a tensor in the order of computation, so that the first failure is the first wrong step."""
    if not name.startswith("texts."):
        return len(manifest["texts"]), 0, name
    _, text, kind, *step = name.split(".", 3)
    steps = [found["name"] for found in manifest["intermediates"]]
    return int(text), 1 + steps.index(step[0]) if step else 0, kind


def _tensor(
    name: str, found: Mapping[str, Array], arrays: Mapping[str, Array], manifest: Mapping[str, Any], port: Path
) -> Iterator[Check]:
    """Yield the comparison of one tensor: one row, for `vectors` or `logits` one row per text."""
    if name == "tokenizer_lines.offsets":
        return  # compared with the ids
    if name == "tokenizer_lines.ids":
        offsets, right = found["tokenizer_lines.offsets"], arrays["tokenizer_lines.offsets"]
        if offsets.shape != right.shape or offsets[-1] != found[name].size:
            raise InputValueError(
                f"{port}: tensor 'tokenizer_lines.offsets': expected one offset per line, and at the end the number of "
                f"ids: {right.size} numbers, the last one {found[name].size}, found {short_repr(offsets.tolist())}"
            )
        yield Check(None, "port", "lines", *differing(line_ids(found), line_ids(arrays)), 0.0)
        return
    text = int(name.split(".")[1]) if name.startswith("texts.") else None
    if name.endswith("ids"):
        yield Check(
            text, "port", name.rpartition(".")[2], *differing(found[name].ravel().tolist(), arrays[name].tolist()), 0.0
        )
        return
    x, r = found[name], arrays[name.replace("float32", "float64", 1)]
    if x.shape != r.shape or x.dtype.kind != "f":
        raise InputValueError(
            f"{port}: tensor {name!r}: expected floats of shape {r.shape}, found {x.dtype} of shape {x.shape}"
        )
    dtype = "float64" if "float64" in name else "float32"
    if text is None:
        of_texts = [(i, kind_of(manifest).result, x[i], r[i]) for i in range(len(x))]
    else:
        of_texts = [(text, name.split(".", 3)[3], x, r)]
    for i, step, mine, right in of_texts:
        yield Check(i, f"port {dtype}", step, *error_of(step, mine, right, arrays), manifest["tolerance"][dtype])


def _ids(path: Path, port: Path, arrays: Mapping[str, Array], manifest: Mapping[str, Any]) -> Iterator[Check]:
    """Yield the comparison of each text whose ids the port has written, and one of all lines that it has written."""
    texts = {(text["text"], text.get("text_pair")): i for i, text in enumerate(manifest["texts"])}
    lines = {(line, None): ids for line, ids in zip(manifest["tokenizer_lines"], line_ids(arrays), strict=True)}
    of_lines: list[list[int]] = []
    expected: list[list[int]] = []
    with open_regular(port, MAX_ARRAYS) as unbuffered, io.BufferedReader(unbuffered) as file:
        for number, line in enumerate(bounded_lines(file.readline), 1):
            item = _item(line)
            if item is None:
                raise InputValueError(
                    f'{port}, line {number}: expected {{"text": ..., "ids": [...]}} with integers as ids, found '
                    f"{short_repr(line)}"
                )
            text, ids = item
            if text in texts:
                i = texts[text]
                yield Check(i, "port", "ids", *differing(ids, arrays[f"texts.{i}.ids"].tolist()), 0.0)
            elif text in lines:
                of_lines.append(ids)
                expected.append(lines[text])
            else:
                raise InputValueError(
                    f"{port}, line {number}: expected a text or a line of {path}, found {short_repr(text[0])}"
                )
    if of_lines:
        yield Check(None, "port", "lines", *differing(of_lines, expected), 0.0)


def _item(line: bytes) -> tuple[tuple[str, str | None], list[int]] | None:
    """The text (of a pair: both texts) and the ids in a line of a .jsonl file; None if it has something else."""
    try:
        item = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(item, dict):
        return None
    text, second, ids = item.get("text"), item.get("text_pair"), item.get("ids")
    if not isinstance(text, str) or not isinstance(second, str | None):
        return None
    if not isinstance(ids, list) or not all(type(number) is int for number in ids):
        return None
    return (text, second), ids
