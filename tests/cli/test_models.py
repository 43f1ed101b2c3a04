"""`info` and `fetch`: what they print, with and without the published model."""

import importlib.metadata
import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest

import minilm_np
from minilm_np import SentenceEncoder
from minilm_np._files import PACKAGE
from minilm_np.engine.registry import COMPUTE_TYPES
from minilm_np.model_files.manifest import DEFAULT_MODEL, manifest_for
from tests.support.cli import NUMPY, Command


def test_info_describes_the_model(command: Command, small: Path) -> None:
    code, out, err = command("info", *NUMPY, "--model", str(small), "--format", "json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert facts["path"] == str(small)
    assert facts["verified"] is False
    assert facts["parameters"] == sum(array.size for array in SentenceEncoder(small, backend="numpy").weights.values())
    assert (facts["dimension"], facts["layers"], facts["heads"], facts["feed_forward"]) == (8, 1, 2, 16)
    assert (facts["max_seq_length"], facts["pooling"], facts["normalize"]) == (16, "mean", True)
    assert facts["versions"]["minilm-np"] == minilm_np.__version__
    assert facts["versions"]["numpy"] == version("numpy")


def test_info_is_one_readable_line_per_fact(command: Command, small: Path) -> None:
    code, out, _ = command("info", *NUMPY, "--model", str(small))
    lines = dict(line.split(maxsplit=1) for line in out.decode().splitlines())
    assert code == 0
    assert lines["path"] == str(small)
    assert lines["verified"].startswith("no")
    assert lines["normalize"] == "yes"
    assert lines["versions"].startswith(f"minilm-np {minilm_np.__version__}, python 3.")


def test_info_names_a_package_that_is_not_installed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_numba(name: str) -> str:
        if name == "numba":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", without_numba)
    code, out, _ = command("info", *NUMPY, "--model", str(command.model), "--format", "json")
    assert code == 0
    assert json.loads(out)["versions"]["numba"] == "(not installed)"


@pytest.mark.weights
def test_info_verifies_the_published_model(command: Command, model_folder: Path) -> None:
    code, out, _ = command("info", *NUMPY, "--model", str(model_folder))
    assert code == 0
    assert re.search(r"^model +sentence-transformers/all-MiniLM-L6-v2$", out.decode(), re.M)
    assert re.search(r"^verified +yes", out.decode(), re.M)
    assert re.search(r"^parameters +22,565,376$", out.decode(), re.M)
    assert re.search(r"^max seq length +256$", out.decode(), re.M)


@pytest.mark.weights
@pytest.mark.usefixtures("model_folder")
def test_fetch_copies_a_local_model_without_a_network(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, _ = command("fetch", "--to", str(tmp_path / "copy"))
    assert (code, out.decode()) == (0, f"{tmp_path / 'copy'}\n")
    code, out, _ = command("info", *NUMPY, "--model", str(tmp_path / "copy"), "--format", "json")
    assert (code, json.loads(out)["verified"]) == (0, True)


@pytest.mark.weights
@pytest.mark.parametrize("compute_type", COMPUTE_TYPES)
def test_the_published_model_has_the_published_fingerprint(
    command: Command, model_folder: Path, compute_type: str
) -> None:
    """In the manifest, in the page of the contract, and as this machine computes it."""
    code, out, _ = command("info", "--model", str(model_folder), "--compute-type", compute_type)
    assert code == 0
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in out.decode().splitlines())
    manifest = manifest_for(DEFAULT_MODEL)
    assert manifest is not None
    assert lines["fingerprint"] == manifest.fingerprints[lines["contract"].partition(" (")[0]]
    assert lines["as published"] == "yes, the fingerprint is the published one"
    page = "float32" if compute_type == "float32" else "integer"
    assert lines["fingerprint"] in (PACKAGE / "engine" / page / "CONTRACT.md").read_text(encoding="utf-8")


@pytest.mark.weights
def test_another_fingerprint_than_the_published_one_is_a_bug_to_report(
    command: Command, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = manifest_for(DEFAULT_MODEL)
    assert manifest is not None
    manifest.fingerprints["1"] = "0" * 64
    monkeypatch.setattr("minilm_np.cli.models.manifest_for", lambda name: manifest)
    code, out, _ = command("info", "--model", str(model_folder))
    assert code == 0
    assert re.search(
        r"^as published +NO: the fingerprint is another one, so this machine computes other bits\..*report it with all",
        out.decode(),
        re.M,
    )


def test_a_model_without_a_published_fingerprint_has_none_to_compare_with(command: Command, small: Path) -> None:
    code, out, _ = command("info", *NUMPY, "--model", str(small))
    assert code == 0
    assert re.search(r"^as published +\(unknown: no fingerprint is published", out.decode(), re.M)
