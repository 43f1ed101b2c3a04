"""The OpenAPI document is true: schemathesis finds no request that is answered otherwise. See `fuzz.py`."""

from minilm_np import CrossEncoder
from tests.server.fuzz import fuzz
from tests.support.server import ask, running


def test_schemathesis_finds_nothing() -> None:
    code, printed = fuzz("--max-examples", "2", "--seed", "1", "--phases", "coverage,fuzzing")
    assert code == 0, printed
    # all but the document itself
    assert "Operations:       12 selected / 12 total" in printed


def test_the_document_names_every_path_and_its_limits(url: str) -> None:
    found = ask(url, "/openapi.json").json
    assert list(found["paths"]) == [
        "/v1/embeddings", "/embed", "/similarity", "/tokenize", "/v1/models", "/v1/models/{name}", "/info", "/health",
        "/metrics", "/openapi.json",
    ]  # fmt: skip
    body = found["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["dimensions"]["maximum"] == 8
    assert body["properties"]["prompt_name"]["enum"] == ["query", "document", None]
    assert body["properties"]["input"]["anyOf"][1]["maxItems"] == 2048


def test_the_document_has_the_paths_of_the_models_only(reranker: CrossEncoder) -> None:
    with running(None, reranker, max_texts=7) as url:
        found = ask(url, "/openapi.json").json["paths"]
    assert list(found) == [
        "/rerank", "/v1/rerank", "/v2/rerank", "/tokenize", "/v1/models", "/v1/models/{name}", "/info", "/health",
        "/metrics", "/openapi.json",
    ]  # fmt: skip
    body = found["/rerank"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["texts"]["maxItems"] == 7
