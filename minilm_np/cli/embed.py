"""`minilm-np embed`: files of any size to a file of vectors, continued after an interruption."""

import argparse
import re
import sys
from typing import TYPE_CHECKING

from minilm_np.cli.options import add_command, add_model_options, add_vector_options, load

if TYPE_CHECKING:
    from minilm_np.cli.options import Commands

DTYPES = ("float32", "float16", "int8")


def add(commands: "Commands") -> None:
    """Add `embed` to the commands."""
    parser = add_command(
        commands,
        "embed",
        _embed,
        "turn files of any size into a file of vectors",
        "printf 'A text\\nAnother one\\n' | minilm-np embed - --output vectors.npy --overwrite",
        details="Rows are computed in parts, which are stored in the folder OUTPUT.parts until the output is written.\n"
        "If the command is interrupted, the same command continues it: the output has the same bytes.\n"
        "For a few texts, or vectors on standard output, use `minilm-np encode`.",
    )
    # an error prints the usage first, and a list of all options would hide the error
    parser.usage = (
        "%(prog)s FILE [FILE ...] --output FILE [OPTION ...]\n       %(prog)s --merge [FOLDER ...] --output FILE"
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="FILE",
        help=".txt (one text per line), .jsonl, .csv, .tsv, .parquet or .arrow, each plain, .gz or .zst; - is standard "
        "input; with --merge: folders of parts (default: OUTPUT.parts)",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help=".npy: an array, rows in order; .parquet: the input's columns and `embedding`; .jsonl: one object per row",
    )
    parser.add_argument("--report", metavar="FILE", help="write a report (JSON), with the list of skipped rows")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an existing output, and start an interrupted job from the beginning",
    )
    rows = parser.add_argument_group("rows")
    rows.add_argument(
        "--column",
        "--field",
        default="text",
        metavar="NAME",
        help="the column, or the field of JSON objects, that contains the texts (default: %(default)s)",
    )
    rows.add_argument(
        "--id",
        metavar="NAME",
        help="the column to copy, instead of the columns of the input (.parquet) or the text (.jsonl)",
    )
    rows.add_argument(
        "--from",
        dest="input_format",
        metavar="KIND",
        help="the format of all inputs, such as jsonl or csv.gz (default: the ending of the name; txt for -)",
    )
    rows.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="for a bad row (not UTF-8, null, no such field, invalid JSON): fail, or omit it and report it "
        "(default: %(default)s)",
    )
    vectors = add_vector_options(parser)
    vectors.add_argument(
        "--dtype",
        choices=DTYPES,
        default=DTYPES[0],
        help="type of the numbers; int8: 127 x / max|x|, rounded, to compare by the cosine (default: %(default)s)",
    )
    several = parser.add_argument_group("several machines")
    several.add_argument(
        "--shard", type=_shard, metavar="K/N", help="compute only the K-th of N shards, into OUTPUT.parts"
    )
    several.add_argument("--merge", action="store_true", help="check and join the parts of all shards")
    add_model_options(parser)


def _embed(options: argparse.Namespace) -> int:
    from minilm_np.jobs import embed_files, merge_shards

    if options.merge:
        if options.shard:
            options.parser.error("expected --shard or --merge, found both")
        made = merge_shards(options.output, options.inputs, overwrite=options.overwrite, report=options.report)
    elif not options.inputs:
        options.parser.error("expected at least one FILE (- for standard input)")
    else:
        encoder = load(options)
        if options.max_length:
            encoder.max_seq_length = options.max_length
        try:
            made = embed_files(
                options.inputs,
                options.output,
                encoder=encoder,
                column=options.column,
                id=options.id,
                dtype=options.dtype,
                input_format=options.input_format,
                on_error=options.on_error,
                on_truncation=options.on_truncation,
                prompt_name=options.prompt_name,
                normalize_embeddings=options.normalize,
                truncate_dim=options.truncate_dim,
                shard=options.shard,
                overwrite=options.overwrite,
                report=options.report,
                show_progress_bar=True,
            )
        except KeyboardInterrupt:
            print("minilm-np: interrupted: the same command (without --overwrite) continues", file=sys.stderr)
            return 130
    print(f"minilm-np: {made}", file=sys.stderr)
    return 0


def _shard(text: str) -> tuple[int, int]:
    """Read an option's value as K/N, from 1/N to N/N."""
    found = re.fullmatch("([0-9]{1,6})/([0-9]{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"expected K/N with K from 1 to N, such as 3/16, found {text!r}")
    return int(found[1]), int(found[2])
