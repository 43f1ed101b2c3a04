"""Embed files of any size: in bounded memory, continued after an interruption, in shards on several machines.

`embed_files` turns the rows of text files and tables into a file of vectors; `merge_shards` joins what several
processes have computed. The command `minilm-np embed` calls them. The manual is docs/jobs.md.

Reading order:

    embedding.py   `embed_files` and `merge_shards`: the arguments, their checks, the order of the steps
    inputs.py      input files as streams of bytes, with an identity
    rows.py        what readers give; text_rows.py, arrow_rows.py: the readers of the formats
    cutting.py     cuts rows into parts of bounded size, and reads ahead
    job.py         what a job's parts depend on; joining them
    run.py         one run: which parts are missing, and computing them
    outputs.py     the formats .npy, .parquet and .jsonl
    store.py       the folder of parts, which survives a killed process
    report.py      what a job has done
"""

from minilm_np.jobs.embedding import embed_files, merge_shards
from minilm_np.jobs.report import EmbedReport, SkippedRow

__all__ = ["EmbedReport", "SkippedRow", "embed_files", "merge_shards"]
