"""`minilm-np train`: fine-tune a model on pairs of texts, or train a new one from scratch."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from minilm_np.cli.options import add_command, add_offline_option, add_threads_option, count, positive
from minilm_np.errors import InputValueError
from minilm_np.model_files.manifest import DEFAULT_MODEL
from minilm_np.sentence_encoder import SentenceEncoder

if TYPE_CHECKING:
    from minilm_np.cli.options import Commands
    from minilm_np.train.sampling import Sampler

DEFAULT = "(default: %(default)s)"
EXAMPLE = (  # it creates the file that it reads
    r'printf "list the files of a folder\tls\nwhat day is it\tdate\nshow a file\tcat FILE\n" > pairs.tsv'
    " && minilm-np train pairs.tsv --output trained --steps 10 --batch-size 3"
)

# The options of a new model: the default, and what the number means.
NEW_SIZES = {
    "vocabulary": (8000, "largest number of word pieces in the vocabulary"),
    "hidden": (128, "numbers per vector"),
    "layers": (3, "number of layers"),
    "heads": (4, "attention heads per layer; they must divide --hidden"),
    "feed-forward": (512, "size of the feed-forward layers"),
    "positions": (128, "tokens of the longest text; longer ones are truncated"),
}


def add(commands: "Commands") -> None:
    """Add the command `train`."""
    train = add_command(commands, "train", _train, "train a model on pairs or triplets of texts", EXAMPLE)
    train.add_argument(
        "data",
        metavar="DATA",
        help="a .jsonl or .tsv file with one pair or triplet of texts per line, plain or .gz; or a data_config.json "
        "that mixes several such files",
    )
    train.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="the folder to write, new or empty; it receives the model, a log and checkpoints",
    )
    train.add_argument("--resume", action="store_true", help="continue the run in DIR from its last checkpoint")

    model = train.add_argument_group("model")
    model.add_argument("--model", help=f"the model to start from, a name or a folder (default: {DEFAULT_MODEL})")
    add_threads_option(model)
    add_offline_option(model)

    recipe = train.add_argument_group("training options")
    recipe.add_argument("--steps", type=positive, default=1000, metavar="N", help=f"number of steps {DEFAULT}")
    recipe.add_argument(
        "--batch-size", type=positive, default=64, metavar="N", help=f"pairs or triplets per step {DEFAULT}"
    )
    recipe.add_argument("--rate", type=float, default=2e-5, help=f"highest learning rate {DEFAULT}")
    recipe.add_argument(
        "--warmup-steps",
        type=count,
        metavar="N",
        help="steps in which the learning rate rises from 0 (default: a tenth of all steps)",
    )
    recipe.add_argument(
        "--schedule",
        choices=("linear", "constant", "cosine"),
        default="linear",
        help=f"the learning rate after the warm-up; linear and cosine fall to 0 {DEFAULT}",
    )
    recipe.add_argument(
        "--optimizer",
        choices=("published", "torch"),
        default="published",
        help=f"form of AdamW: the one that trained the published model, or torch's {DEFAULT}",
    )
    recipe.add_argument("--decay", type=float, default=0.0, help=f"weight decay {DEFAULT}")
    recipe.add_argument("--dropout", type=float, default=0.1, help=f"probability of dropout {DEFAULT}")
    recipe.add_argument("--scale", type=float, default=20.0, help=f"factor of the cosines in the loss {DEFAULT}")
    recipe.add_argument(
        "--max-length", type=positive, metavar="N", help="truncate texts to N tokens (default: the limit of the model)"
    )
    recipe.add_argument(
        "--seed",
        type=count,
        default=0,
        metavar="N",
        help=f"seed of the batches, of dropout, and of random weights {DEFAULT}",
    )

    way = train.add_argument_group("evaluation and checkpoints")
    way.add_argument(
        "--evaluate-sts", metavar="FILE", help="print Spearman's correlation for a file that `minilm-np eval sts` reads"
    )
    way.add_argument(
        "--evaluate-retrieval", metavar="FILE", help="print MRR@10 for a file that `minilm-np eval retrieval` reads"
    )
    way.add_argument(
        "--evaluate-every", type=positive, metavar="N", help="evaluate every N steps (default: at the end only)"
    )
    way.add_argument(
        "--save-every",
        type=positive,
        metavar="N",
        help="write a checkpoint every N steps (default: after Ctrl-C only)",
    )
    way.add_argument(
        "--keep-last", type=positive, default=2, metavar="N", help=f"keep the last N checkpoints {DEFAULT}"
    )
    way.add_argument(
        "--patience",
        type=positive,
        metavar="N",
        help="stop after N evaluations without an improvement (default: never)",
    )
    way.add_argument("--quiet", action="store_true", help="show no progress")

    new = train.add_argument_group(
        "training from scratch", "with --init random: a vocabulary learned from DATA, and random weights"
    )
    new.add_argument(
        "--init",
        choices=("model", "random"),
        default="model",
        help=f"start from a model, or from random weights {DEFAULT}",
    )
    for name, (default, meaning) in NEW_SIZES.items():
        new.add_argument(f"--{name}", type=positive, metavar="N", help=f"{meaning} (default: {default})")


def _train(options: argparse.Namespace) -> int:
    from minilm_np.evaluation import read_sts, retrieval, sts
    from minilm_np.train.checkpoints import list_checkpoints
    from minilm_np.train.data import open_data, read_samples
    from minilm_np.train.loop import Evaluation, Habits, TrainingOptions, train

    _check_combinations(options)
    data = open_data(options.data, batch_size=options.batch_size, seed=options.seed)
    encoder = (
        _new(options, data)
        if options.init == "random"
        else SentenceEncoder(options.model or DEFAULT_MODEL, backend="numpy", local_files_only=options.offline)
    )
    if options.max_length:
        encoder.max_seq_length = options.max_length
    evaluations: dict[str, Evaluation] = {}
    if path := options.evaluate_retrieval:
        list(read_samples(path))  # reports errors in the file now, not after hours of training
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
            print(
                f"minilm-np: the checkpoint {saved[-1]} is written: to continue, run the same command with --resume",
                file=sys.stderr,
            )
        raise
    if result.stopped_early and result.step < options.steps:
        print(
            f"minilm-np: stopped early, after step {result.step} of {options.steps}: no improvement in "
            f"{options.patience} evaluations; the best model is {Path(options.output, 'best')}",
            file=sys.stderr,
        )
    last = min(50, result.step)
    print(f"{Path(options.output, 'model')}: {result.step} steps, loss {result.loss:.4f} (mean of the last {last})")
    for name, figure in result.evaluations.items():
        print(f"{name}: {figure:.4f}")
    return 0


def _check_combinations(options: argparse.Namespace) -> None:
    """Raise InputValueError for an option that would have no effect without another one."""
    evaluates = options.evaluate_sts or options.evaluate_retrieval
    if options.init == "random" and options.model:
        raise InputValueError("--model: not allowed with --init random, which starts from random weights")
    for name in NEW_SIZES:
        if options.init != "random" and _size(options, name):
            raise InputValueError(f"--{name}: it sets the size of a new model: add --init random")
    for name in ("evaluate_every", "patience"):
        if getattr(options, name) and not evaluates:
            option = f"--{name.replace('_', '-')}"
            raise InputValueError(
                f"{option}: no evaluation is given: add --evaluate-retrieval FILE or --evaluate-sts FILE"
            )


def _size(options: argparse.Namespace, name: str) -> int | None:
    found: int | None = getattr(options, name.replace("-", "_"))
    return found


def _new(options: argparse.Namespace, data: "Sampler") -> SentenceEncoder:
    """A new encoder with random weights, and with a vocabulary learned from the texts of the data."""
    from minilm_np.model_files.config import ModelConfig
    from minilm_np.train.scratch import new_encoder

    sizes = {name: _size(options, name) or default for name, (default, _) in NEW_SIZES.items()}
    config = ModelConfig(
        vocab_size=sizes["vocabulary"], hidden_size=sizes["hidden"], num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"], intermediate_size=sizes["feed-forward"],
        max_position_embeddings=sizes["positions"], max_seq_length=sizes["positions"],
    )  # fmt: skip
    return new_encoder(data.texts(), config, options.seed, backend="numpy")
