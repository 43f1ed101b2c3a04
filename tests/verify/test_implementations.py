"""Sources that `verify` refuses."""

import pytest

from minilm_np import InputTypeError, InputValueError, SentenceEncoder
from minilm_np.verify import open_implementation

TEXTS = ["hello world", "", "a much longer text than the others, with [SEP] in it"]


@pytest.fixture(scope="module")
def small() -> SentenceEncoder:
    return SentenceEncoder.random(backend="numpy")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nonsense", "source: expected sentence-transformers, .* found 'nonsense'"),
        ("model.bin", "source: expected sentence-transformers"),
        ("there/is/no.npy", r"source \(--against, --vectors\): there is no file there/is/no.npy: check the path"),
        ("no.onnx", "there is no file no.onnx"),
        ("http://localhost:1/v2/rerank", "expected a URL that ends in /v1/embeddings or /embed"),
        (
            "https:///embed",
            "the URL of the server is not valid: expected http://HOST:PORT/PATH or https://HOST:PORT/PATH",
        ),
        ("http://me:secret@localhost/embed", "expected one without a user name and a password"),
    ],
)
def test_what_is_no_source_is_refused(small: SentenceEncoder, source: str, message: str) -> None:
    with pytest.raises(InputValueError, match=message) as raised:
        open_implementation(source, small)
    assert "secret" not in str(raised.value)


def test_a_source_of_another_type_is_refused(small: SentenceEncoder) -> None:
    with pytest.raises(InputTypeError, match="source: expected a str, found int"):
        open_implementation(3, small)  # type: ignore[arg-type]
