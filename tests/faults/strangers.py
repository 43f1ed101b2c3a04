"""Model folders from strangers: absurd values in every field of every JSON file that the package reads.

`run` draws values, writes them into the files of a small model, and loads the model with every engine. A load ends in
an error of this package that names the folder, or in a model that encodes: within 10 seconds, and with less than 1 GB
of memory. The loads happen in a child process that has these limits, because a load that breaks them is killed.

    python -m tests.faults.strangers FOLDER FIRST STOP SEED     the child: loads of the draws from FIRST to STOP - 1
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tests.faults import Outcome, experiment
from tests.support.places import CHECKOUT

MEMORY = 10**9  # bytes of private memory: NumPy, Numba and the model take 0.1 GB of them
SECONDS = 10  # per load
ENGINES = (("numpy", "float32"), ("numba", "float32"), ("numba", "int16"), ("numba", "int8"))

SINGLE, INDEX, SHARDS = "model.safetensors", "model.safetensors.index.json", ("a.safetensors", "b.safetensors")
HEADERS = (SINGLE, *SHARDS)  # files that begin with JSON

# Keys that the readers look for, and that the saved model does not have.
MORE_KEYS: dict[str, dict[str, Any]] = {
    "config.json": {
        "is_decoder": False, "add_cross_attention": False, "is_encoder_decoder": False, "quantization_config": None,
        "pruned_heads": {}, "embedding_size": 16, "torch_dtype": "float32",
    },
    "modules.json": {},
    "1_Pooling/config.json": {"pooling_mode": "mean", "embedding_dimension": 16, "include_prompt": True},
    "2_Normalize/config.json": {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"},
    "sentence_bert_config.json": {
        "transformer_task": "feature-extraction", "module_output_name": "token_embeddings", "config_args": {},
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "model_args": {}, "document_length": None, "query_length": None,
    },
    "config_sentence_transformers.json": {"truncate_dim": None},
    "tokenizer_config.json": {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True},
    "tokenizer.json": {},
    INDEX: {},
    SINGLE: {"__metadata__": {"format": "pt"}},
    SHARDS[0]: {},
    SHARDS[1]: {},
}  # fmt: skip

# JSON texts, because some are no values of Python.
NUMBERS = (
    "0", "-0", "1", "-1", "2", "3", "7", "17", "1000000", "10000000", "1000000000", "2147483647", "2147483648",
    "4294967296", "9223372036854775807", "9223372036854775808", "1" + "0" * 400, "9" * 5000, "0.5", "1e-320", "1e30",
    "1e308", "1e999", "-1e999", "NaN", "Infinity",
)  # fmt: skip
STRINGS = (
    '""', '"0"', '"mean"', '"bert"', '"[UNK]"', '"../.."', '"/dev/zero"', '"\\u0000"', '"\\ud800"', '"\\u001b[2J"',
    '"' + "x" * 100_000 + '"',
)  # fmt: skip
OTHERS = (
    "null", "true", "false", "[]", "{}", "[null]", '{"": null}', '{"a": 1, "a": 1}', "[" * 900 + "]" * 900,
    "[" * 100_000, '{"a":' * 900 + "1" + "}" * 900, "[" + "[]," * 100_000 + "0]", "[" + "1," * 100_000 + "0]",
    "{" + ",".join(f'"{n}":{n}' for n in range(30_000)) + "}",
)  # fmt: skip

BULK = "[" + "[]," * 3_200_000 + "0]"  # just within the limit of JSON files; parsed, it takes 240 MB

# (file, place in it, value): values that once took all memory or all time. For each engine; then for one of them.
SIZES: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("config.json", ("num_hidden_layers",), "1000000"),
    ("config.json", ("num_hidden_layers",), "2147483647"),
    ("config.json", ("intermediate_size",), "10000000"),
)
BULKS: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("config.json", ("bulk",), BULK),
    ("modules.json", (), BULK),
    (INDEX, ("metadata",), BULK),
    (SINGLE, ("__metadata__",), BULK),
)
KNOWN = (*(case for case in SIZES for _ in ENGINES), *BULKS)


# ---- the files -------------------------------------------------------------------------------------------------------


def write_model(folder: Path) -> None:
    """Write a small random model, with one file of weights, and with two shards beside it."""
    from safetensors.numpy import load_file, save_file

    from minilm_np import ModelConfig, SentenceEncoder
    from minilm_np.model_files.random_weights import CHARACTER_VOCABULARY

    config = ModelConfig(
        vocab_size=len(CHARACTER_VOCABULARY), max_position_embeddings=32, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=24, max_seq_length=32,
    )  # fmt: skip
    for engine, compute_type in ENGINES:  # compiles the kernels here, where there are no limits, if need be
        encoder = SentenceEncoder.random(config, backend=engine, compute_type=compute_type)
    encoder.save_pretrained(str(folder))
    weights = load_file(folder / SINGLE)
    weight_map = {name: SHARDS[number % 2] for number, name in enumerate(weights)}
    for shard in SHARDS:
        save_file({name: weights[name] for name in weights if weight_map[name] == shard}, folder / shard)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    for name, more in MORE_KEYS.items():
        change(folder / name, partial(extended, more=more))


def extended(value: Any, more: dict[str, Any]) -> Any:
    """A JSON object with more keys; any other value as it is."""
    return value | more if isinstance(value, dict) else value


def change(path: Path, edit: Callable[[Any], Any], finish: Callable[[str], str] = str) -> None:
    """Edit the JSON value of a file, or of its header, then its JSON text."""
    content = path.read_bytes() if path.exists() else b"{}"
    data = b""
    if path.name in HEADERS:
        length = int.from_bytes(content[:8], "little")
        content, data = content[8 : 8 + length], content[8 + length :]
    raw = finish(json.dumps(edit(json.loads(content)))).encode()
    path.write_bytes((len(raw).to_bytes(8, "little") if path.name in HEADERS else b"") + raw + data)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of keys and indices to every value in a JSON value; of a long object or list, the first few."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for number, (key, inner) in enumerate(items):
        if number < 40:
            yield from places(inner, (*at, key))


def drawn(random: Random, original: Any) -> str:
    """An absurd value, as JSON text: most often one of the original's type, or one that resembles it."""
    is_number, is_string = type(original) in (int, float), isinstance(original, str)
    if random.random() < 0.6:
        return random.choice(NUMBERS if is_number else STRINGS if is_string else OTHERS)
    if random.random() < 0.5:
        return random.choice(NUMBERS + STRINGS + OTHERS)
    alike: list[Any] = [[original], {"a": original}, [original] * 3, str(original)]
    if is_number:
        alike += [original + 1, original - 1, -original, original * 2, original * 10**6]
    return json.dumps(random.choice(alike))


def replaced(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """A JSON value with another value at a path; `...` removes it."""
    if not at:
        return None if new is ... else new
    copy = value.copy()
    if new is ... and len(at) == 1:
        del copy[at[0]]
    else:
        copy[at[0]] = new if len(at) == 1 else replaced(value[at[0]], at[1:], new)
    return copy


def absurd(folder: Path, name: str, random: Random) -> str:
    """Write one absurd value into a file; returns what was done."""

    def chosen(value: Any) -> tuple[Any, ...]:
        # the fields of the readers are near the root, in most files; below there are many others
        depth = random.choice([1, 1, 1, 2, 2, 2, 3, 6])
        return random.choice([at for at in places(value) if min(depth, 1) <= len(at) <= depth] or [()])

    return put(folder, name, chosen, lambda original: drawn(random, original) if random.random() < 0.9 else None)


def known(folder: Path, name: str, at: tuple[Any, ...], text: str) -> str:
    """Write a value into a place of a file; returns what was done."""
    return put(folder, name, lambda value: at, lambda original: text)


def put(folder: Path, name: str, at: Callable[[Any], tuple[Any, ...]], new: Callable[[Any], str | None]) -> str:
    """Put a JSON text in a place of a file (None removes what is there); returns what was done."""
    place: tuple[Any, ...] = ()
    text: str | None = ""

    def edit(value: Any) -> Any:
        nonlocal place, text
        original, place = value, at(value)
        for key in place:
            original = original.get(key) if isinstance(original, dict) else original[key]
        text = new(original)
        return replaced(value, place, ... if text is None else "@@")

    change(folder / name, edit, lambda raw: raw if text is None else raw.replace('"@@"', text))
    return f"{name}{list(place)} " + ("removed" if text is None else f"= {text:.60}")


# ---- the child -------------------------------------------------------------------------------------------------------


def child(folder: Path, first: int, stop: int, seed: int) -> None:
    """Make the draws, and print two lines for each: what is drawn, then how the load ended."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    try:
        bytearray(MEMORY)
    except MemoryError:
        pass
    else:
        raise RuntimeError("this system does not limit the memory of a process")
    from minilm_np import SentenceEncoder
    from minilm_np.errors import MiniLMError

    warnings.simplefilter("ignore")
    for draw in range(first, stop):
        random = Random(f"{seed} {draw}")
        shutil.copytree(folder.with_name("honest"), folder, dirs_exist_ok=True)
        backend, compute_type = ENGINES[draw % len(ENGINES)]
        names = set(random.choices(list(MORE_KEYS), k=random.choice([1, 1, 1, 2, 3])))
        if draw < len(KNOWN):
            names = {KNOWN[draw][0]}
        if names & {INDEX, *SHARDS}:
            (folder / SINGLE).unlink()
        if draw < len(KNOWN):
            said = [known(folder, *KNOWN[draw])]
        else:
            said = [absurd(folder, name, random) for name in sorted(names) if (folder / name).exists()]
        print(f"draw {draw}: {backend} {compute_type}, {'; '.join(said)}", flush=True)
        threads = 1 if backend == "numba" else None
        signal.setitimer(signal.ITIMER_REAL, SECONDS)  # the signal ends the process
        try:
            encoder = SentenceEncoder(folder, backend=backend, compute_type=compute_type, threads=threads)
        except MiniLMError as error:
            how = "refused" if str(folder) in str(error) else f"FAILED: no file in {error!r:.300}"
        except BaseException as error:
            how = f"FAILED: {error!r:.300}"
        else:
            try:
                encoder.encode(["a text", ""], on_truncation="ignore")
                how = "loaded"
            except MiniLMError as error:
                how = f"refused at encode ({type(error).__name__})"
            except BaseException as error:
                how = f"FAILED at encode: {error!r:.300}"
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(how, flush=True)


# ---- the parent ------------------------------------------------------------------------------------------------------


def run(draws: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """Make draws. Returns how often the loads ended in which way, and a line for each that ended in a wrong one."""
    ended: Counter[str] = Counter()
    failures = []
    with tempfile.TemporaryDirectory() as temporary:
        write_model(Path(temporary, "honest"))
        done = 0
        while done < draws:
            command = [sys.executable, "-m", "tests.faults.strangers", f"{temporary}/drawn"]
            made = subprocess.run(
                [*command, str(done), str(draws), str(seed)], cwd=CHECKOUT, capture_output=True, text=True,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}, check=False,
            )  # fmt: skip
            lines = made.stdout.splitlines()
            for what, how in zip(lines[::2], lines[1::2], strict=False):
                done += 1
                if how.startswith("FAILED"):
                    failures.append(f"{what}: {how}")
                else:
                    ended[how] += 1
            if made.returncode:
                done += 1
                found = "more than 10 s" if made.returncode == -signal.SIGALRM else f"exit code {made.returncode}"
                failures.append(f"{lines[-1] if len(lines) % 2 else 'the start'}: {found} {made.stderr[-1000:]}")
                if len(lines) % 2 == 0:
                    break
    return ended, failures


@experiment("model files: absurd values", count=20000, quick=0, limit_s=3600)
def absurd_values(count: int, random: Random) -> Outcome:
    """Draw a value for a field of any JSON file; load it in 1 GB and 10 s: refused by name, or it works."""
    ended, failures = run(count, random.randrange(10**6))
    return Outcome(ended, failures)


if __name__ == "__main__":
    child(Path(sys.argv[1]), *map(int, sys.argv[2:]))
