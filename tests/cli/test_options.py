"""The options that commands share, and loading a model by them."""

import argparse
from pathlib import Path

import pytest

from minilm_np import HubError
from minilm_np.cli import options


def parsed(*arguments: str, **settings: bool) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    options.add_model_options(parser, **settings)  # type: ignore[arg-type]
    return parser.parse_args(arguments)


def test_a_model_is_loaded_as_the_options_say(small: Path) -> None:
    encoder = options.load(parsed("--model", str(small), "--backend", "numba", "--threads", "1"))
    assert (encoder.model_path, encoder.backend, encoder.threads) == (str(small), "numba", 1)
    encoder = options.load(parsed("--model", str(small), "--backend", "numpy", threads=False))
    assert (encoder.backend, encoder.threads) == ("numpy", None)


def test_offline_uses_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def network(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    for name in ("HF_HUB_CACHE", "HF_HOME", "MINILM_NP_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    monkeypatch.setattr("socket.socket.connect", network)
    monkeypatch.setattr("socket.getaddrinfo", network)
    with pytest.raises(HubError, match="someone/model is not on this machine"):
        options.load(parsed("--model", "someone/model", "--backend", "numpy", "--offline"))


@pytest.mark.parametrize(
    ("value", "message"),
    [("0", "at least 1, found '0'"), ("-1", "at least 1, found '-1'"), ("1" * 19, "at most 18 digits, found '1111")],
)
def test_a_number_that_is_not_positive_is_refused(value: str, message: str) -> None:
    assert options.positive("0012") == 12
    with pytest.raises(argparse.ArgumentTypeError, match=f"expected a whole number of {message}"):
        options.positive(value)


def test_a_count_may_be_0() -> None:
    assert [options.count(text) for text in ("0", "00", "007")] == [0, 0, 7]
    for value, message in (("-1", "at least 0, found '-1'"), ("1" * 19, "at most 18 digits, found '1111")):
        with pytest.raises(argparse.ArgumentTypeError, match=f"expected a whole number of {message}"):
            options.count(value)
