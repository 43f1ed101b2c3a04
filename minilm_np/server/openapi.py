"""The OpenAPI document, from the models and the settings: its limits are the server's."""

from typing import Any

import minilm_np
from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.encoding.pair_model import PairModel
from minilm_np.server.failures import Why
from minilm_np.server.requests import MOST_TOP
from minilm_np.server.service import Served, Service
from minilm_np.server.settings import ServerSettings

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": ["boolean", "null"]}
TRUNCATE: Schema = {
    **BOOLEAN,
    "description": "Use the beginning of a text that is longer than the model's limit, instead of an error.",
}
DIRECTION: Schema = {"enum": ["right", "Right", None]}
COMMON = (Why.NO_KEY, Why.CLOSING)
WITH_BODY = (Why.NOT_JSON, Why.INVALID, Why.SLOW_BODY, Why.TOO_LARGE, Why.NOT_SUPPORTED, Why.OVERLOADED, Why.FAILED)


def document(service: Service) -> Schema:
    """Return the OpenAPI 3.1 document of a server: the paths that its models can answer."""
    settings = service.settings
    post, description = dict[str, Schema](), []
    if (encoder := service.vectors) is not None:
        post |= _of_vectors(settings, encoder)
        description.append(f"Sentence vectors of {encoder.name}, {encoder.model.config.vector_size} numbers per text.")
    if (reranker := service.scores) is not None:
        post |= _of_scores(settings, reranker)
        description.append(f"Scores of {reranker.name} for a query and texts.")
    post["/tokenize"] = _of_tokens(settings, service.tokenizing_model)
    paths: dict[str, Schema] = {path: {"post": operation} for path, operation in post.items()}
    paths |= {path: {"get": operation} for path, operation in _descriptions().items()}
    found: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "minilm_np",
            "description": " ".join(description),
            "version": minilm_np.__version__,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
    }
    if settings.api_key:
        found["components"] = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}
        found["security"] = [{"key": []}]
        paths["/health"]["get"]["security"] = []
    return found


def _of_vectors(settings: ServerSettings, served: Served[LoadedModel]) -> dict[str, Schema]:
    """The operations that return vectors, by path."""
    config, prompt = served.model.config, _prompt(served.model)
    ids = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": config.vocab_size - 1}, "minItems": 1}
    inputs = {
        "anyOf": [
            STRING,
            {"type": "array", "items": STRING, "minItems": 1, "maxItems": settings.max_texts},
            ids,
            {"type": "array", "items": ids, "minItems": 1, "maxItems": settings.max_texts},
        ],
        "description": "A text, several texts, or their token ids.",
    }
    dimensions = {"type": ["integer", "null"], "minimum": 1, "maximum": config.vector_size}
    vector = {"type": "array", "items": {"type": "number"}}
    embedding = _object(
        {"object": {"const": "embedding"}, "index": {"type": "integer"}, "embedding": {"anyOf": [vector, STRING]}}
    )
    counts = _object({"prompt_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"}})
    return {
        "/v1/embeddings": _post(
            "Vectors of texts (OpenAI)",
            _body(
                {
                    "input": inputs,
                    "model": {"type": ["string", "null"], "examples": [served.name]},
                    "encoding_format": {"enum": ["float", "base64", None]},
                    "dimensions": dimensions,
                    "user": {"type": ["string", "null"]},
                    "truncate": TRUNCATE,
                    "prompt_name": prompt,
                },
                "input",
            ),
            _object({"object": {"const": "list"}, "data": _array(embedding), "model": STRING, "usage": counts}),
            "openai",
            Why.NO_MODEL,
            Why.LATE,
        ),
        "/embed": _post(
            "Vectors of texts (text-embeddings-inference)",
            _body(
                {
                    "inputs": inputs,
                    "truncate": TRUNCATE,
                    "truncation_direction": DIRECTION,
                    "normalize": {**BOOLEAN, "default": True},
                    "prompt_name": prompt,
                    "dimensions": dimensions,
                    "encoding_format": {"enum": ["float", None]},
                },
                "inputs",
            ),
            _array(vector),
            "tei",
            Why.LATE,
        ),
        "/similarity": _post(
            "Cosines of one text and others (text-embeddings-inference)",
            _body(
                {
                    "inputs": _body(
                        {
                            "source_sentence": STRING,
                            "sentences": {**_array(STRING), "minItems": 1, "maxItems": settings.max_texts - 1},
                        },
                        "source_sentence",
                        "sentences",
                    ),
                    "parameters": {
                        **_body({"truncate": TRUNCATE, "truncation_direction": DIRECTION, "prompt_name": prompt}),
                        "type": ["object", "null"],
                    },
                },
                "inputs",
            ),
            vector,
            "tei",
            Why.LATE,
        ),
    }


def _of_scores(settings: ServerSettings, served: Served[PairModel]) -> dict[str, Schema]:
    """The operations that score a query and texts, by path."""
    count = {"type": "integer"}
    texts = {**_array(STRING), "minItems": 1, "maxItems": settings.max_texts}
    documents = {**texts, "items": {"anyOf": [STRING, _body({"text": STRING}, "text")]}}
    rank: Schema = {
        "type": "object",
        "properties": {"index": count, "score": {"type": "number"}, "text": STRING},
        "required": ["index", "score"],
    }
    result: Schema = {
        "type": "object",
        "properties": {"index": count, "relevance_score": {"type": "number"}, "document": _object({"text": STRING})},
        "required": ["index", "relevance_score"],
    }
    documents_by_score = _post(
        "Documents by their scores with a query (Cohere, Jina)",
        _body(
            {
                "query": STRING,
                "documents": documents,
                "model": {"type": ["string", "null"], "examples": [served.name]},
                "top_n": {"type": ["integer", "null"], "minimum": 1, "maximum": MOST_TOP},
                "return_documents": BOOLEAN,
                "truncate": TRUNCATE,
            },
            "query",
            "documents",
        ),
        _object(
            {
                "id": STRING,
                "model": STRING,
                "results": _array(result),
                "usage": _object({"total_tokens": count}),
                "meta": {"type": "object"},
            }
        ),
        "openai",
        Why.NO_MODEL,
        Why.LATE,
    )
    return {
        "/rerank": _post(
            "Texts by their scores with a query (text-embeddings-inference)",
            _body(
                {
                    "query": STRING,
                    "texts": texts,
                    "raw_scores": {**BOOLEAN, "description": "Return logits instead of numbers from 0 to 1."},
                    "return_text": BOOLEAN,
                    "truncate": TRUNCATE,
                    "truncation_direction": DIRECTION,
                },
                "query",
                "texts",
            ),
            _array(rank),
            "tei",
            Why.LATE,
        ),
        "/v1/rerank": documents_by_score,
        "/v2/rerank": documents_by_score,
    }


def _of_tokens(settings: ServerSettings, model: LoadedModel) -> Schema:
    """The operation that returns the tokens of texts."""
    place = {"type": ["integer", "null"]}
    token = _object(
        {"id": {"type": "integer"}, "text": STRING, "special": {"type": "boolean"}, "start": place, "stop": place}
    )
    return _post(
        "Tokens of texts (text-embeddings-inference)",
        _body(
            {
                "inputs": {"anyOf": [STRING, {**_array(STRING), "minItems": 1, "maxItems": settings.max_texts}]},
                "add_special_tokens": {**BOOLEAN, "default": True},
                "prompt_name": _prompt(model),
            },
            "inputs",
        ),
        _array(_array(token)),
        "tei",
    )


def _descriptions() -> dict[str, Schema]:
    """The operations that describe the server, by path."""
    entry = _object({"id": STRING, "object": {"const": "model"}, "created": {"type": "integer"}, "owned_by": STRING})
    return {
        "/v1/models": _get("The models", _object({"object": {"const": "list"}, "data": _array(entry)}), "openai"),
        "/v1/models/{name}": {
            **_get("The model of a name", entry, "openai", Why.NO_MODEL),
            "parameters": [{"name": "name", "in": "path", "required": True, "schema": STRING}],
        },
        "/info": _get("The model and the limits of the server", {"type": "object"}, "tei"),
        "/health": _get("200 if requests are answered", {"type": "object"}, "tei"),
        "/metrics": _get("Numbers for Prometheus", STRING, "tei", kind="text/plain"),
        "/openapi.json": _get("This document", {"type": "object"}, "tei"),
    }


def _prompt(model: LoadedModel) -> Schema:
    return {
        "enum": [*model.settings.prompts, None],
        "description": "The name of a prompt of the model, which is put before each text.",
    }


def _post(summary: str, body: Schema, answer: Schema, api: str, *more: Why) -> Schema:
    operation = _get(summary, answer, api, *WITH_BODY, *more)
    return {**operation, "requestBody": {"required": True, "content": {"application/json": {"schema": body}}}}


def _get(summary: str, answer: Schema, api: str, *more: Why, kind: str = "application/json") -> Schema:
    responses = {"200": {"description": "Done", "content": {kind: {"schema": answer}}}}
    for why in (*COMMON, *more):
        status = str(why.value.openai_status if api == "openai" else why.value.tei_status)
        words = why.name.lower().replace("_", " ")
        if status in responses:
            words = f"{responses[status]['description']}; {words}"
        responses[status] = {"description": words, "content": {"application/json": {"schema": _error(api)}}}
    return {"summary": summary, "responses": responses}


def _error(api: str) -> Schema:
    if api == "tei":
        return _object({"error": STRING, "error_type": STRING})
    text = {"type": ["string", "null"]}
    return _object({"error": _object({"message": STRING, "type": STRING, "param": text, "code": text})})


def _object(properties: Schema) -> Schema:
    """An object of a response: every property is there."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _body(properties: Schema, *required: str) -> Schema:
    """An object of a request: unknown properties are refused."""
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | ({"required": list(required)} if required else {})


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}
