"""`minilm-np train`: fine-tune a model on pairs of texts, or train one from nothing."""

import argparse
from pathlib import Path
from typing import Any

from minilm_np.cli.options import add_command, positive
from minilm_np.manifest import DEFAULT_MODEL

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
    train.add_argument("--model", default=DEFAULT_MODEL, help="what to begin with (default: %(default)s)")
    train.add_argument("--threads", type=positive, metavar="N", help="(default: all it may use)")

    recipe = train.add_argument_group("recipe")
    recipe.add_argument("--steps", type=positive, default=1000, metavar="N", help="(default: %(default)s)")
    recipe.add_argument("--batch-size", type=positive, default=64, metavar="N", help="pairs (default: %(default)s)")
    recipe.add_argument("--rate", type=float, default=2e-5, help="the highest learning rate (default: %(default)s)")
    recipe.add_argument("--warmup-steps", type=_count, metavar="N", help="(default: a tenth of the steps)")
    recipe.add_argument("--schedule", choices=("linear", "constant", "cosine"), default="linear", help="%(default)s")
    recipe.add_argument("--optimizer", choices=("published", "torch"), default="published", help="the form of AdamW")
    recipe.add_argument("--decay", type=float, default=0.0, help="weight decay (default: %(default)s)")
    recipe.add_argument("--dropout", type=float, default=0.1, help="(default: %(default)s)")
    recipe.add_argument("--scale", type=float, default=20.0, help="of the cosines in the loss (default: %(default)s)")
    recipe.add_argument("--max-length", type=positive, metavar="N", help="tokens of a text (default: the model's)")
    recipe.add_argument("--seed", type=_count, default=0, metavar="N", help="(default: %(default)s)")

    way = train.add_argument_group("on the way")
    way.add_argument("--evaluate-sts", metavar="FILE", help="Spearman of a scored file, see `minilm-np eval sts`")
    way.add_argument("--evaluate-retrieval", metavar="FILE", help="MRR@10 of pairs, see `minilm-np eval retrieval`")
    way.add_argument("--evaluate-every", type=positive, metavar="N", help="steps (default: at the end only)")
    way.add_argument("--save-every", type=positive, metavar="N", help="steps from checkpoint to checkpoint")
    way.add_argument("--keep-last", type=positive, default=2, metavar="N", help="checkpoints (default: %(default)s)")
    way.add_argument("--patience", type=positive, metavar="N", help="end after N evaluations without a better one")
    way.add_argument("--quiet", action="store_true", help="no progress bar")

    new = train.add_argument_group("from nothing")
    new.add_argument("--init", choices=("model", "random"), default="model", help="random: learn the vocabulary too")
    for name, default in NEW_SIZES.items():
        new.add_argument(f"--{name}", type=positive, default=default, metavar="N", help="(default: %(default)s)")


NEW_SIZES = {"vocabulary": 8000, "hidden": 128, "layers": 3, "heads": 4, "feed-forward": 512, "positions": 64}


def _count(text: str) -> int:
    return 0 if text == "0" else positive(text)


def _train(options: argparse.Namespace) -> int:
    from minilm_np import SentenceEncoder
    from minilm_np.evaluation import read_sts, retrieval, sts
    from minilm_np.train.data import open_data, read_samples
    from minilm_np.train.loop import Habits, TrainingOptions, train

    data = open_data(options.data, batch_size=options.batch_size, seed=options.seed)
    encoder = _new(options, data) if options.init == "random" else SentenceEncoder(options.model, backend="numpy")
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
    result = train(
        encoder, data, options.output, recipe, habits,
        evaluations=evaluations, threads=options.threads, resume=options.resume,
    )  # fmt: skip
    print(f"{Path(options.output, 'model')}: {result.step} steps, loss {result.loss:.4f}")
    for name, figure in result.evaluations.items():
        print(f"{name}: {figure:.4f}")
    return 0


def _new(options: argparse.Namespace, data: Any) -> Any:
    """An encoder with random weights, and a vocabulary of the data's own texts."""
    from minilm_np import ModelConfig
    from minilm_np.train.scratch import new_encoder

    config = ModelConfig(
        vocab_size=options.vocabulary, hidden_size=options.hidden, num_hidden_layers=options.layers,
        num_attention_heads=options.heads, intermediate_size=options.feed_forward,
        max_position_embeddings=options.positions, max_seq_length=options.positions,
    )  # fmt: skip
    return new_encoder(data.texts(), config, options.seed, backend="numpy")
