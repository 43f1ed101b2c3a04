"""Delay Ctrl-C to the end of a training step, because a run cannot be resumed from the middle of one."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger("minilm_np")


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """In a `with` block, delay the first Ctrl-C. Gives a function that returns whether Ctrl-C was pressed.

    A second Ctrl-C raises KeyboardInterrupt at once. Outside of the main thread, or if the program has its own handler
    of SIGINT, nothing is changed and the function returns False.
    """
    received: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        logger.warning(
            "interrupted: training stops after this step and writes a checkpoint; press Ctrl-C again to stop at once, "
            "without a checkpoint"
        )

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGINT, before)
