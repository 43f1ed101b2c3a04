"""A lock that a fork waits for.

A child process starts with one thread, and with all locks of its parent as they were at the fork. If another thread
was importing a module or compiling kernels, the lock of that module and the locks inside Numba and LLVM stay locked in
the child for ever, and the child cannot renew them. So these things are done with `no_fork` held, and `os.fork` waits
for them: milliseconds, or the seconds of the first compilation on a machine.

Only `os.fork` waits, and what calls it, such as `multiprocessing`; `subprocess` has no need to.

The order of locks: `no_fork` first, then the lock of a module. So no module of this package may take `no_fork` while it
is being imported.
"""

import logging  # noqa: F401  # registers its hooks first, see below
import os
import threading

no_fork = threading.RLock()  # reentrant: a signal handler may fork in the thread that holds it

# Hooks before a fork are called in the reverse order of their registration, and that of `logging` takes its lock. What
# holds `no_fork` may log, so a fork has to wait for `no_fork` before it takes the lock of `logging`.
if hasattr(os, "register_at_fork"):
    # The forking thread holds the lock while it forks, so in the child, too, it is the thread that releases it.
    os.register_at_fork(before=no_fork.acquire, after_in_parent=no_fork.release, after_in_child=no_fork.release)
