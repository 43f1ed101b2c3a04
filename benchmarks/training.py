"""Training beside torch: speed, memory, and whether the results agree; and the effect of training on a model.

    python -m benchmarks.training speed FILE [--steps N] [--batch-size N] [--threads N]
    python -m benchmarks.training equal FILE [--steps N] [--batch-size N]
    python -m benchmarks.training effect FILE --test FILE [--sts FILE] [--steps N] [--seeds N]
    python -m benchmarks.training memory --batch-size N

FILE: pairs of texts, as for `minilm-np train`.
speed: two processes train on the same batches, with dropout. Their steps alternate, with a pause between them. torch
    runs the model of sentence-transformers with its fastest attention, and pads each column to its longest text.
equal: the same without dropout, with torch's form of AdamW and a constant rate of 2e-5. Prints how far the losses and
    the weights drift apart.
effect: trains with the published recipe, but with 150 steps of 64 pairs, 15 of them warm-up, for several seeds.
    Evaluates before and after.
memory: one step of N pairs of 128 tokens each, made of random words.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.common import (
    Worker,
    WorkerError,
    describe,
    machine,
    markdown,
    peak_memory,
    say,
    take_stdout,
    thread_variables,
)
from minilm_np import MiniLMError, SentenceEncoder
from minilm_np.model_files.hub import fetch

PAUSE = 0.4  # seconds; after a step, torch's threads keep spinning for a while


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "equal", "effect", "memory", "worker"))
    parser.add_argument("data", nargs="?", metavar="FILE", help="pairs of texts, as for `minilm-np train`")
    parser.add_argument("--steps", type=int, help="number of steps (default: 20; equal: 50; effect: 150)")
    parser.add_argument("--batch-size", type=int, default=64, help="pairs per step (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads per engine (default: %(default)s)")
    parser.add_argument("--test", help="pairs that `minilm-np eval retrieval` reads")
    parser.add_argument("--sts", help="scored pairs that `minilm-np eval sts` reads")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: %(default)s)")
    parser.add_argument("--engine", choices=ENGINES, help="for worker only")
    parser.add_argument("--dropout", type=float, default=0.0, help="for worker only")
    options = parser.parse_args()
    if not options.data and options.what != "memory":
        parser.error(f"{options.what} needs a FILE of pairs")
    if options.what == "effect" and not options.test:
        parser.error("effect needs --test FILE")
    if options.what == "worker":
        work(options)
        return
    print(describe(machine()))
    try:
        {"speed": speed, "equal": equal, "effect": effect, "memory": memory}[options.what](options)
    except (MiniLMError, WorkerError) as error:
        parser.exit(1, f"{error}\n")


# ---- speed and equality ----------------------------------------------------------------------------------------------


def start(options: argparse.Namespace, engine: str, dropout: float) -> Worker:
    """Start a process that trains with one engine, see `work`."""
    arguments = ["worker", options.data, "--engine", engine, "--dropout", str(dropout)]
    arguments += ["--batch-size", str(options.batch_size), "--threads", str(options.threads)]
    return Worker("-m", "benchmarks.training", *arguments, **thread_variables(options.threads))


def speed(options: argparse.Namespace) -> None:
    """Print the seconds per step, and the memory, of both engines."""
    workers = {engine: start(options, engine, 0.1) for engine in ENGINES}
    seconds: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    steps = options.steps or 20
    for step in range(1 + steps):  # the first one is a warm-up
        order = list(ENGINES) if step % 2 else list(ENGINES)[::-1]
        for engine in order:
            time.sleep(PAUSE)
            answer = workers[engine].ask(step=step)
            if step:
                seconds[engine].append(answer["seconds"])
        say(f"step {step} of {steps}: " + ", ".join(f"{engine} {seconds[engine][-1:]}" for engine in ENGINES))
    memory = {engine: worker.ask(memory=True) / 1e6 for engine, worker in workers.items()}
    rows = [
        [engine, f"{statistics.median(seconds[engine]):.3f}", f"{min(seconds[engine]):.3f}", f"{memory[engine]:.0f}"]
        for engine in ENGINES
    ]
    print(markdown(["engine", "median s per step", "best", "peak memory, MB"], rows))
    ratios = [theirs / ours for theirs, ours in zip(seconds["torch"], seconds["minilm_np"], strict=True)]
    print(f"torch / minilm_np: median over {steps} steps {statistics.median(ratios):.2f}, "
          f"from {min(ratios):.2f} to {max(ratios):.2f}; {options.threads} threads")  # fmt: skip
    close(workers)


def equal(options: argparse.Namespace) -> None:
    """Print how far the losses and the weights of both engines differ."""
    workers = {engine: start(options, engine, 0.0) for engine in ENGINES}
    losses: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    for step in range(options.steps or 50):
        for engine, worker in workers.items():
            losses[engine].append(worker.ask(step=step)["loss"])
    drift = max(abs(a - b) for a, b in zip(losses["torch"], losses["minilm_np"], strict=True))
    print(f"{len(losses['torch'])} steps: the loss fell from {losses['torch'][0]:.4f} to {losses['torch'][-1]:.4f}; "
          f"largest difference {drift:.1e}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        paths = {engine: str(Path(folder, f"{engine}.npz")) for engine in ENGINES}
        for engine, worker in workers.items():
            worker.ask(save=paths[engine])
        ours, theirs = (np.load(paths[engine]) for engine in ("minilm_np", "torch"))
        begin = SentenceEncoder(fetch().path, backend="numpy").weights
        difference = sum(float(np.square(ours[name] - theirs[name], dtype=np.float64).sum()) for name in begin)
        change = sum(float(np.square(theirs[name] - begin[name], dtype=np.float64).sum()) for name in begin)
    print(f"change of the weights: differs by {(difference / change) ** 0.5:.1e} of its length")
    close(workers)


def close(workers: dict[str, Worker]) -> None:
    for worker in workers.values():
        worker.close()


def work(options: argparse.Namespace) -> None:
    """Answer each request on stdin: train one step, report the peak memory, or save the weights."""
    import json

    pipe = take_stdout()
    model = ENGINES[options.engine](options)
    batches = batches_of(options)
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any = None
        if "step" in request:
            columns = next(batches)
            began = time.perf_counter()
            loss = model.step(columns, request["step"])
            answer = {"loss": loss, "seconds": time.perf_counter() - began}
        elif "memory" in request:
            answer = peak_memory()
        else:
            np.savez(request["save"], **model.weights())
        print(json.dumps(answer), file=pipe, flush=True)


def batches_of(options: argparse.Namespace) -> Iterator[list[list[str]]]:
    """Yield the columns of batch after batch, the same ones for both engines."""
    from minilm_np.train.data import open_data

    for batch in open_data(options.data, batch_size=options.batch_size, seed=0):
        yield batch.columns


class Ours:
    """This project's training step."""

    def __init__(self, options: argparse.Namespace) -> None:
        from minilm_np.train.engine import TrainingEngine
        from minilm_np.train.optim import AdamW

        encoder = SentenceEncoder(fetch().path, backend="numpy")
        self.tokenizer, self.dropout = encoder.tokenizer, options.dropout
        self.parameters = {name: np.array(array) for name, array in encoder.weights.items()}
        config = encoder.config
        del encoder  # and its engine with it
        self.engine = TrainingEngine(config, self.parameters, options.threads)
        self.optimizer = AdamW(self.parameters, "torch")

    def step(self, columns: list[list[str]], step: int) -> float:
        from minilm_np.train.dropout import Dropout
        from minilm_np.train.loss import contrastive_loss
        from minilm_np.train.optim import clip_by_global_norm

        ids = self.tokenizer([text for column in columns for text in column]).ids
        dropout = Dropout(0, step, self.dropout, self.dropout)
        vectors = self.engine.forward(ids, dropout)
        loss, d_vectors = contrastive_loss(vectors.reshape(len(columns), -1, vectors.shape[1]))
        gradients = self.engine.backward(ids, d_vectors.reshape(vectors.shape), dropout)
        clip_by_global_norm(gradients)
        self.optimizer.step(gradients, 2e-5)
        self.engine.refresh()
        return loss

    def weights(self) -> dict[str, np.ndarray]:
        return self.parameters


class Torch:
    """The same step in torch, on sentence-transformers' model."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        self.model = cast(Any, SentenceTransformer(str(fetch().path), device="cpu"))
        self.bert = self.model[0].auto_model
        for module in self.bert.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = options.dropout
        self.bert.config.attention_probs_dropout_prob = options.dropout
        self.model.train(options.dropout > 0)
        for name, parameter in self.bert.named_parameters():
            parameter.requires_grad_(not name.startswith("pooler"))
        used = [parameter for parameter in self.bert.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(used, lr=2e-5, eps=1e-6, weight_decay=0.0)
        self.used = used

    def step(self, columns: list[list[str]], step: int) -> float:
        import torch

        batches = [self.model.tokenize(column) for column in columns]
        a, b = (self.model(batch)["sentence_embedding"] for batch in batches)
        scores, right = 20 * a @ b.T, torch.arange(len(a))
        cross_entropy = torch.nn.functional.cross_entropy
        loss = (cross_entropy(scores, right) + cross_entropy(scores.T, right)) / 2
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.used, 1.0)
        self.optimizer.step()
        return float(loss.detach())

    def weights(self) -> dict[str, np.ndarray]:
        return {name: tensor.detach().numpy() for name, tensor in self.bert.named_parameters() if tensor.requires_grad}


ENGINES: dict[str, Any] = {"minilm_np": Ours, "torch": Torch}


# ---- memory ----------------------------------------------------------------------------------------------------------


def memory(options: argparse.Namespace) -> None:
    """Print the peak memory of one step with texts as long as those that the published model was trained with."""
    options.dropout = 0.1
    model = Ours(options)
    tokens = map(model.tokenizer.token, range(2000, 28000))
    words = [token for token in tokens if token.isascii() and token.isalpha()]  # each is one word piece
    drawn = np.random.default_rng(0).choice(words, (2, options.batch_size, 126))
    columns = [[" ".join(text) for text in column] for column in drawn]
    lengths = {len(ids) for column in columns for ids in model.tokenizer(column).ids}
    before, began = peak_memory() / 1e9, time.perf_counter()
    model.step(columns, 0)
    seconds = time.perf_counter() - began
    print(f"{options.batch_size} pairs of {', '.join(map(str, lengths))} tokens: {seconds:.0f} s per step, "
          f"peak memory {peak_memory() / 1e9:.2f} GB ({before:.2f} GB before the step)")  # fmt: skip


# ---- effect ----------------------------------------------------------------------------------------------------------


def effect(options: argparse.Namespace) -> None:
    """Print MRR@10 and Spearman's correlation before training, and after it for each seed."""
    from minilm_np.evaluation import retrieval, sts
    from minilm_np.train.data import open_data
    from minilm_np.train.loop import TrainingOptions, train

    def figures(encoder: SentenceEncoder) -> list[float]:
        spearman = [sts(encoder, options.sts)["spearman"]] if options.sts else []
        return [retrieval(encoder, options.test)["MRR@10"], *spearman]

    encoder = SentenceEncoder(fetch().path, threads=options.threads)
    rows = [figures(encoder)]
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            data = open_data(options.data, batch_size=options.batch_size, seed=seed)
            recipe = TrainingOptions(steps=options.steps or 150, seed=seed)
            train(encoder, data, Path(folder, "run"), recipe, threads=options.threads)
            seconds = time.perf_counter() - began
            rows.append(figures(SentenceEncoder(Path(folder, "run", "model"), threads=options.threads)))
            say(f"seed {seed}: {seconds:.0f} s, MRR@10 {rows[-1][0]:.4f}")
    names = ["before", *(f"seed {seed}" for seed in range(options.seeds)), "median of seeds"]
    rows.append([statistics.median(column) for column in zip(*rows[1:], strict=True)])
    header = ["", "MRR@10", "Spearman"][: 1 + len(rows[0])]
    print(markdown(header, [[name, *(f"{x:.4f}" for x in row)] for name, row in zip(names, rows, strict=True)]))


if __name__ == "__main__":
    main()
