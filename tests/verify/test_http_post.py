"""`post` and servers that misbehave: it ends in time, takes no more bytes than allowed, and leaves no connection."""

import gzip
import itertools
import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

from minilm_np.errors import ImplementationError
from minilm_np.verify.http_post import THREAD, post
from tests.support.bad_servers import CHUNKED, ENDLESS, HEAD, PAUSE, Talk, sends, serving_raw, silent

SECONDS = 0.3


def ask(url: str, *, seconds: float = SECONDS, largest: int = 1000) -> bytes:
    return post(url, b"{}", name="the server", seconds=seconds, largest=largest)


def assert_left_in_time(url: str) -> None:
    started = time.monotonic()
    with pytest.raises(ImplementationError, match=r"^the server: no complete response within 0\.3 seconds$"):
        ask(url)
    assert time.monotonic() - started < 4
    threads = [thread for thread in threading.enumerate() if thread.name == THREAD]
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("talk", ENDLESS.values(), ids=ENDLESS)
def test_no_part_of_a_response_can_exceed_the_time_limit(talk: Talk) -> None:
    with serving_raw(talk) as at:
        assert_left_in_time(f"http://{at}/")


@pytest.mark.parametrize("talk", [silent, sends(b"\x16\x03\x03\x40\x00", itertools.repeat(b"\0"), PAUSE)])
def test_a_tls_handshake_cannot_exceed_the_time_limit(talk: Talk) -> None:
    with serving_raw(talk) as at:
        assert_left_in_time(f"https://{at}/")


def test_a_proxy_cannot_exceed_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving_raw(sends(HEAD, itertools.repeat(b"X: y\r\n"), PAUSE)) as at:
        for variable in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("https_proxy", f"http://{at}")
        assert_left_in_time("https://server.invalid/")


def test_name_resolution_cannot_exceed_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: end.wait(60) and [])
    threading.Timer(2 * SECONDS, end.set).start()
    assert_left_in_time("http://server.invalid/")


@pytest.mark.parametrize(
    "talk",
    [
        sends(HEAD + b"\r\n", itertools.repeat(b" " * 1000)),
        sends(HEAD + b"Content-Length: 1000000000000\r\n\r\n", itertools.repeat(b" " * 1000)),
        sends(CHUNKED, itertools.repeat(b"3E8\r\n" + b" " * 1000 + b"\r\n")),
        sends(CHUNKED + b"FFFFFFFFFFFFFFFF\r\n", itertools.repeat(b" " * 1000)),
        sends(CHUNKED + b"-5\r\n", itertools.repeat(b" " * 1000)),
    ],
)
def test_a_response_without_end_is_cut_off(talk: Talk) -> None:
    with (
        serving_raw(talk) as at,
        pytest.raises(ImplementationError, match=r"^the server: the response is longer than 1000 bytes$"),
    ):
        ask(f"http://{at}/", seconds=20)


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (b"", "the request failed: Remote end closed connection without response"),
        (b"\x1b]0;title\x07\r\n\r\n", r"the request failed: [^\x1b]*$"),
        (HEAD + b"X: y\r\n" * 200 + b"\r\n", "the request failed: got more than 100 headers"),
        (HEAD + b"X" * 100_000, "the request failed: got more than 65536 bytes when reading header line"),
        (HEAD + b"Content-Length: 100\r\n\r\n[]", "the response ends 98 bytes too early"),
        (CHUNKED + b"64\r\n[]", "the request failed: IncompleteRead"),
        (CHUNKED + b"x\r\n", "the request failed: IncompleteRead"),
        (b"HTTP/1.1 500 \x1b[2J\r\nContent-Length: 6\r\n\r\n\x1b[31mA", r"the server answered 500  \[2J:  \[31mA$"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "the server answered 302 Found"),
        (b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:9/\r\n\r\n", "the server answered 307 Moved"),
    ],
)
def test_a_response_that_is_broken_is_refused(response: bytes, message: str) -> None:
    with serving_raw(sends(response)) as at, pytest.raises(ImplementationError, match=f"^the server: ({message})"):
        ask(f"http://{at}/", seconds=20)


def test_a_response_of_the_largest_size_is_returned_and_not_decompressed() -> None:
    bomb = gzip.compress(bytes(100_000))
    for body in (b"x" * 1000, bomb):
        head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
        with serving_raw(sends(head + body)) as at:
            assert ask(f"http://{at}/", seconds=20) == body


def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with serving_raw(sends(HEAD + b"\r\n[]"), "::1") as at:
        assert ask(f"http://{at}/", seconds=20) == b"[]"


def test_a_certificate_that_nobody_signed_is_refused(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is needed to make a certificate")
    argv = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout key -out certificate"
    subprocess.run(
        [*argv.split(), "-addext", "subjectAltName=IP:127.0.0.1"], cwd=tmp_path, check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as encrypted:
            sends(HEAD + b"\r\n[]")(encrypted)

    with serving_raw(talk) as at, pytest.raises(ImplementationError, match="CERTIFICATE_VERIFY_FAILED"):
        ask(f"https://{at}/", seconds=20)
