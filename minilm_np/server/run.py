"""`serve`: the application on uvicorn, until SIGTERM or Ctrl-C."""

import contextlib
import errno
import gc
import ipaddress
import resource
import signal
import socket
import sys

import uvicorn
from starlette.applications import Starlette

from minilm_np.server.connections import protocol_with_limits
from minilm_np.server.settings import ServerSettings

BACKLOG = 2048  # connections that the system holds before they are accepted
LINGERING = 16_384  # refused connections that are closed a second later
SPARE_FILES = 200  # open files besides the connections
SWITCH_SECONDS = 0.0005  # how long a thread may keep the others waiting for Python's lock; the default is 0.005


def configured(app: Starlette, settings: ServerSettings) -> uvicorn.Config:
    """Return uvicorn's configuration of a server."""
    return uvicorn.Config(
        app,
        http=protocol_with_limits(settings),
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive,  # type: ignore[arg-type]  # uvicorn passes both on to asyncio
        timeout_graceful_shutdown=settings.graceful_timeout,  # type: ignore[arg-type]
    )


def serve(app: Starlette, settings: ServerSettings, listening: socket.socket) -> None:
    """Answer requests until SIGTERM or SIGINT; then answer those in flight, and return."""
    server = uvicorn.Server(configured(app, settings))

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn raises the signal again when it is done; these handlers then do nothing, so the exit code is 0
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # the 45,000 objects of the libraries: a full collection that visits them stops all threads for 16 ms
    try:
        server.run(sockets=[listening])
    finally:
        gc.unfreeze()
        sys.setswitchinterval(interval)
        for number, handler in before.items():
            signal.signal(number, handler)


def listen(settings: ServerSettings) -> socket.socket:
    """Return a listening socket. Raises OSError, which names the address."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        why = str(error.strerror).partition(" (while attempting")[0]  # the address is named once
        remedy = ": stop the other program, or choose another --port" if error.errno == errno.EADDRINUSE else ""
        message = f"cannot listen on {settings.host}, port {settings.port}: {why}{remedy}"
        raise OSError(error.errno, message) from None


def url_of(listening: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can connect to an address."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def raise_file_limit(settings: ServerSettings) -> None:
    """Allow the process as many open files as its connections need, as far as the system lets it."""
    needed = settings.max_connections + BACKLOG + LINGERING + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
