"""An arm64 system for QEMU, downloaded into a folder: Debian's Python, QEMU itself, and aarch64 wheels."""

import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SUITE = "bookworm"  # Debian 12, whose Python is 3.11
PYTHON = "3.11"
DEBIAN = (
    "libc6", "libgcc-s1", "libstdc++6", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "zlib1g",
    "libexpat1", "libffi8", "libssl3", "libbz2-1.0", "liblzma5", "libuuid1",
)  # fmt: skip
WHEELS = (
    "numpy", "numba", "llvmlite", "tokenizers", "safetensors", "threadpoolctl", "tqdm", "huggingface_hub",
)  # fmt: skip
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")


def download(folder: Path) -> tuple[Path, Path, Path]:
    """Return QEMU, the root of the arm64 system, and the folder of the wheels; download what is missing."""
    root, site, tools = folder / "root", folder / "site", folder / "tools"
    installed = shutil.which("qemu-aarch64-static")
    if not root.exists():
        print("downloading Debian's arm64 packages ...", file=sys.stderr)
        _unpacked(_debian(folder / "packages", DEBIAN), root)
    if not installed and not tools.exists():
        _unpacked(_debian(folder / "packages", ["qemu-user-static:amd64"]), tools)
    if not site.exists():
        print("downloading aarch64 wheels ...", file=sys.stderr)
        _unpacked(_wheels(folder / "packages"), site)
    qemu = Path(installed) if installed else tools / "usr" / "bin" / "qemu-aarch64-static"
    return qemu, root, site


def _unpacked(packages: Path, place: Path) -> None:
    """Unpack a folder of packages completely or not at all, and remove it."""
    new = place.with_name(f"{place.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    for package in sorted(packages.iterdir()):
        if package.suffix == ".deb":
            _run(["dpkg-deb", "-x", str(package), str(new)])
        elif package.suffix == ".whl":
            shutil.unpack_archive(package, new, "zip")
    new.rename(place)
    shutil.rmtree(packages)


def _debian(folder: Path, names: Sequence[str]) -> Path:
    """Download packages of Debian."""
    shutil.rmtree(folder, ignore_errors=True)
    apt = _apt(folder / "apt")
    _run([*apt, "update"])
    _run([*apt, "download", *names], cwd=folder)
    return folder


def _wheels(folder: Path) -> Path:
    """Download the wheels, in the versions that are installed here."""
    shutil.rmtree(folder, ignore_errors=True)
    pinned = [f"{name}=={importlib.metadata.version(name)}" for name in WHEELS]
    platforms = [f"--platform={name}" for name in (*PLATFORMS, "any")]
    abis = ["--abi=cp311", "--abi=abi3", "--abi=none"]
    _run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
         f"--python-version={PYTHON}", "--implementation=cp", *abis, *platforms, f"--dest={folder}", *pinned]
    )  # fmt: skip
    return folder


def _apt(state: Path) -> list[str]:
    """apt-get with its own state, for arm64; the machine's packages and lists stay as they are."""
    for name in ("lists/partial", "archives/partial", "empty"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (state / "sources.list").write_text(f"deb [signed-by={keyring}] http://deb.debian.org/debian {SUITE} main\n")
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "amd64",
        "APT::Sandbox::User": "root",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": state / "empty",
        "Acquire::Languages": "none",
    }
    return ["apt-get", "-qq", *(part for name, value in settings.items() for part in ("-o", f"{name}={value}"))]


def _run(command: list[str], cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True)
