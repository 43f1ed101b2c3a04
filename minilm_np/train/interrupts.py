"""Ctrl-C that waits for the end of a step: a run cannot go on from what is half done."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger("minilm_np")


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """In a `with` block, the first Ctrl-C only makes the function that this gives say so; a second one interrupts.

    Nothing is changed outside of the main thread, which alone is interrupted, or where the host has its own handler.
    """
    asked: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        logger.warning("interrupted: stops after this step, with a checkpoint; once more to stop at once, without")

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
