"""Small matrices on one thread of BLAS.

OpenBLAS shares every product but the smallest among its threads, which wait for each other by spinning. For the
matrices of short texts this takes more processor time than the products themselves, and on a busy machine ten times
as long.
"""

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minilm_np._forks import no_fork

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


_limiting = threading.Lock()  # held by the block that limits BLAS, never waited for


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run a block with one thread of BLAS. Results are right with any number.

    The number is one of the process. A block inside another one, or beside one in another thread, changes nothing: it
    would restore the limit that it found. So BLAS has all its threads again when the block that limited it ends, and a
    child that was forked in a block of another thread keeps one.
    """
    if not _limiting.acquire(blocking=False):
        yield
        return
    try:
        with _controller().limit(limits=1):
            yield
    finally:
        _limiting.release()


@functools.cache
def _controller() -> "ThreadpoolController":
    with no_fork:
        from threadpoolctl import ThreadpoolController

        return ThreadpoolController().select(user_api="blas")
