"""`minilm-np train`: fine-tune a model on pairs of texts, or train one from nothing."""

import argparse
import sys
from pathlib import Path
from typing import Any

from minilm_np.cli.options import add_command, positive
from minilm_np.errors import InputValueError
from minilm_np.model_files.manifest import DEFAULT_MODEL

DEFAULT = "(default: %(default)s)"
EXAMPLE = "minilm-np train pairs.jsonl --output trained --steps 150 --batch-size 64"


def add(commands: Any) -> None:
    train = add_command(commands, "train", _train, "train a model on pairs or triplets of texts", EXAMPLE)
    train.add_argument(
        "data",
        metavar="DATA",
        help="a .jsonl or .tsv of pairs or triplets (or .gz of it), or a data_config.json that mixes several",
    )
    train.add_argument("--output", required=True, metavar="DIR", help="a new folder for the model, log and checkpoints")
    train.add_argument("--resume", action="store_true", help="go on with the run in DIR, from its last checkpoint")
    train.add_argument("--model", help=f"what to begin with (default: {DEFAULT_MODEL})")
    train.add_argument("--threads", type=positive, metavar="N", help="(default: all it may use)")

    recipe = train.add_argument_group("recipe")
    recipe.add_argument("--steps", type=positive, default=1000, metavar="N", help=DEFAULT)
    recipe.add_argument("--batch-size", type=positive, default=64, metavar="N", help=f"pairs {DEFAULT}")
    recipe.add_argument("--rate", type=float, default=2e-5, help=f"the highest learning rate {DEFAULT}")
    recipe.add_argument("--warmup-steps", type=_count, metavar="N", help="(default: a tenth of the steps)")
    recipe.add_argument("--schedule", choices=("linear", "constant", "cosine"), default="linear", help=DEFAULT)
    recipe.add_argument("--optimizer", choices=("published", "torch"), default="published", help=f"AdamW {DEFAULT}")
    recipe.add_argument("--decay", type=float, default=0.0, help=f"weight decay {DEFAULT}")
    recipe.add_argument("--dropout", type=float, default=0.1, help=DEFAULT)
    recipe.add_argument("--scale", type=float, default=20.0, help=f"of the cosines in the loss {DEFAULT}")
    recipe.add_argument("--max-length", type=positive, metavar="N", help="tokens of a text (default: the model's)")
    recipe.add_argument("--seed", type=_count, default=0, metavar="N", help=DEFAULT)

    way = train.add_argument_group("on the way")
    way.add_argument("--evaluate-sts", metavar="FILE", help="Spearman of a scored file, see `minilm-np eval sts`")
    way.add_argument("--evaluate-retrieval", metavar="FILE", help="MRR@10 of pairs, see `minilm-np eval retrieval`")
    way.add_argument("--evaluate-every", type=positive, metavar="N", help="steps (default: at the end only)")
    way.add_argument("--save-every", type=positive, metavar="N", help="steps (default: no checkpoints, but at Ctrl-C)")
    way.add_argument("--keep-last", type=positive, default=2, metavar="N", help=f"checkpoints {DEFAULT}")
    way.add_argument("--patience", type=positive, metavar="N", help="end after N evaluations without a better one")
    way.add_argument("--quiet", action="store_true", help="no progress bar")

    new = train.add_argument_group("from nothing (--init random)", "a vocabulary of the data's own, random weights")
    new.add_argument("--init", choices=("model", "random"), default="model", help=DEFAULT)
    for name, default in NEW_SIZES.items():
        new.add_argument(f"--{name}", type=positive, metavar="N", help=f"(default: {default})")


NEW_SIZES = {"vocabulary": 8000, "hidden": 128, "layers": 3, "heads": 4, "feed-forward": 512, "positions": 128}


def _count(text: str) -> int:
    return 0 if text == "0" else positive(text)


def _train(options: argparse.Namespace) -> int:
    from minilm_np import SentenceEncoder
    from minilm_np.evaluation import read_sts, retrieval, sts
    from minilm_np.train.checkpoints import list_checkpoints
    from minilm_np.train.data import open_data, read_samples
    from minilm_np.train.loop import Habits, TrainingOptions, train

    _refuse_what_would_be_ignored(options)
    data = open_data(options.data, batch_size=options.batch_size, seed=options.seed)
    encoder = (
        _new(options, data)
        if options.init == "random"
        else SentenceEncoder(options.model or DEFAULT_MODEL, backend="numpy")
    )
    if options.max_length:
        encoder.max_seq_length = options.max_length
    evaluations: dict[str, Any] = {}
    if path := options.evaluate_retrieval:
        list(read_samples(path))  # what is wrong with it is said now, not after hours
        evaluations["MRR@10"] = lambda current: retrieval(current, path)["MRR@10"]
    if scored := options.evaluate_sts:
        read_sts(scored)
        evaluations["Spearman"] = lambda current: sts(current, scored)["spearman"]
    recipe = TrainingOptions(
        steps=options.steps, rate=options.rate, warmup_steps=options.warmup_steps, schedule=options.schedule,
        optimizer=options.optimizer, decay=options.decay, dropout=options.dropout, attention_dropout=options.dropout,
        scale=options.scale, seed=options.seed,
    )  # fmt: skip
    habits = Habits(
        evaluate_every=options.evaluate_every or 0, save_every=options.save_every or 0, keep_last=options.keep_last,
        patience=options.patience or 0, progress=not options.quiet,
    )  # fmt: skip
    try:
        result = train(
            encoder, data, options.output, recipe, habits,
            evaluations=evaluations, threads=options.threads, resume=options.resume,
        )  # fmt: skip
    except KeyboardInterrupt:
        if saved := list_checkpoints(Path(options.output, "checkpoints")):
            print(f"minilm-np: {saved[-1]} is saved: go on with the same command and --resume", file=sys.stderr)
        raise
    print(f"{Path(options.output, 'model')}: {result.step} steps, loss {result.loss:.4f} (mean of the last 50)")
    for name, figure in result.evaluations.items():
        print(f"{name}: {figure:.4f}")
    return 0


def _refuse_what_would_be_ignored(options: argparse.Namespace) -> None:
    """Raise InputValueError for an option that has no effect without another one."""
    evaluates = options.evaluate_sts or options.evaluate_retrieval
    if options.init == "random" and options.model:
        raise InputValueError("--model: a model that is made from nothing (--init random) begins with none")
    for name in NEW_SIZES:
        if options.init != "random" and _size(options, name):
            raise InputValueError(
                f"--{name}: the size of a model that is made from nothing: expected --init random too"
            )
    for name in ("evaluate_every", "patience"):
        if getattr(options, name) and not evaluates:
            option = f"--{name.replace('_', '-')}"
            raise InputValueError(f"{option}: expected --evaluate-retrieval FILE or --evaluate-sts FILE too")


def _size(options: argparse.Namespace, name: str) -> int | None:
    found: int | None = getattr(options, name.replace("-", "_"))
    return found


def _new(options: argparse.Namespace, data: Any) -> Any:
    """An encoder with random weights, and a vocabulary of the data's own texts."""
    from minilm_np import ModelConfig
    from minilm_np.train.scratch import new_encoder

    sizes = {name: _size(options, name) or default for name, default in NEW_SIZES.items()}
    config = ModelConfig(
        vocab_size=sizes["vocabulary"], hidden_size=sizes["hidden"], num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"], intermediate_size=sizes["feed-forward"],
        max_position_embeddings=sizes["positions"], max_seq_length=sizes["positions"],
    )  # fmt: skip
    return new_encoder(data.texts(), config, options.seed, backend="numpy")
