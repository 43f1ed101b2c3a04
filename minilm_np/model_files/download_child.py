"""The child process that downloads a model: it runs huggingface_hub or pip, within fixed limits.

    python -P download_child.py hub JSON             files of a model; the keys are the parameters of `fetch_files`
    python -P download_child.py pip BYTES ARG...     pip with these arguments; no file is longer than BYTES

Standard input is a pipe from the parent. The process ends as soon as the parent closes it or ends in any way.
The operating system enforces the limits on the size of a file and on memory. They cover what neither program limits: a
body without end, a compressed body that expands, an endless list of files.

Imports nothing of this package, because it is run by its path.
"""

import json
import os
import sys
import threading
from contextlib import suppress
from typing import Any

MEMORY = 1 << 30  # bytes; both programs need less than 128 MB
OVERHEAD = 1 << 20  # bytes: the smallest limit of a file, because both programs write small files for themselves


def main(program: str, *arguments: str) -> None:
    """Run one of the two programs."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    _limit("RLIMIT_DATA", MEMORY)
    if program == "pip":
        import runpy  # here, because the parent imports this module

        largest, *sys.argv[1:] = arguments
        _limit("RLIMIT_FSIZE", int(largest))
        runpy.run_module("pip", run_name="__main__", alter_sys=True)
        return
    try:
        answer = {"path": fetch_files(**json.loads(arguments[0]))}
    except Exception as error:
        # huggingface_hub reports a failed connection as files that are missing on this machine, with the cause
        cause = error.__cause__ if type(error).__name__ == "LocalEntryNotFoundError" and error.__cause__ else error
        answer = {"error": f"{type(cause).__name__}: {cause}"}
    print("\n" + json.dumps(answer))  # the last line of the output
    sys.exit("error" in answer)


def fetch_files(repo_id: str, revision: str, batches: list[tuple[list[str], int]], **source: Any) -> str:
    """Download files from the Hugging Face Hub with `snapshot_download` -> the folder with the files.

    batches: patterns of file names, and the number of bytes that no file of the batch exceeds.
    source: the other arguments of `snapshot_download`.
    """
    from huggingface_hub import constants, model_info, snapshot_download

    if revision != "main":  # with a commit, `snapshot_download` begins with a request that it retries for many seconds
        model_info(repo_id, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    # The default of 10 MB is also the unit of progress, and a slow connection needs longer for it than the parent waits
    constants.DOWNLOAD_CHUNK_SIZE = 1 << 16
    for patterns, largest in batches:
        _limit("RLIMIT_FSIZE", max(largest, OVERHEAD))
        folder = snapshot_download(repo_id, revision=revision, allow_patterns=patterns, **source)
    return str(folder)


def _limit(name: str, value: int) -> None:
    """Set a limit of this process. A write beyond RLIMIT_FSIZE is an OSError, because Python ignores SIGXFSZ."""
    with suppress(ImportError):  # Windows has no such limits
        import resource

        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _end_with_the_parent() -> None:
    os.read(0, 1)  # the parent writes nothing: this returns at the end of the pipe
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
