"""The OpenAPI document, from the settings: its limits are the server's."""

from typing import Any

import minilm_np
from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.server.failures import Why
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


def document(settings: ServerSettings, name: str, model: LoadedModel) -> Schema:
    """Return the OpenAPI 3.1 document of a server of this model. name: for `model` of a request."""
    config = model.config
    post, get = _operations(settings, name, model)
    paths: dict[str, Schema] = {path: {"post": operation} for path, operation in post.items()}
    paths |= {path: {"get": operation} for path, operation in get.items()}
    found: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "minilm_np",
            "description": f"Sentence vectors of {name}, {config.vector_size} numbers per text.",
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


def _operations(settings: ServerSettings, name: str, model: LoadedModel) -> tuple[dict[str, Schema], dict[str, Schema]]:
    """The operations of POST and of GET, by path."""
    config = model.config
    prompt = {
        "enum": [*model.settings.prompts, None],
        "description": "The name of a prompt of the model, which is put before each text.",
    }
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
    texts = {"anyOf": inputs["anyOf"][:2]}
    dimensions = {"type": ["integer", "null"], "minimum": 1, "maximum": config.vector_size}
    vector = {"type": "array", "items": {"type": "number"}}
    entry = _object({"id": STRING, "object": {"const": "model"}, "created": {"type": "integer"}, "owned_by": STRING})
    embedding = _object(
        {"object": {"const": "embedding"}, "index": {"type": "integer"}, "embedding": {"anyOf": [vector, STRING]}}
    )
    counts = _object({"prompt_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"}})
    place = {"type": ["integer", "null"]}
    token = _object(
        {"id": {"type": "integer"}, "text": STRING, "special": {"type": "boolean"}, "start": place, "stop": place}
    )
    post = {
        "/v1/embeddings": _post(
            "Vectors of texts (OpenAI)",
            _body(
                {
                    "input": inputs,
                    "model": {"type": ["string", "null"], "examples": [name]},
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
        "/tokenize": _post(
            "Tokens of texts (text-embeddings-inference)",
            _body(
                {"inputs": texts, "add_special_tokens": {**BOOLEAN, "default": True}, "prompt_name": prompt}, "inputs"
            ),
            _array(_array(token)),
            "tei",
        ),
    }
    get = {
        "/v1/models": _get("The model", _object({"object": {"const": "list"}, "data": _array(entry)}), "openai"),
        "/v1/models/{name}": {
            **_get("The model of a name", entry, "openai", Why.NO_MODEL),
            "parameters": [{"name": "name", "in": "path", "required": True, "schema": STRING}],
        },
        "/info": _get("The model and the limits of the server", {"type": "object"}, "tei"),
        "/health": _get("200 if requests are answered", {"type": "object"}, "tei"),
        "/metrics": _get("Numbers for Prometheus", STRING, "tei", kind="text/plain"),
        "/openapi.json": _get("This document", {"type": "object"}, "tei"),
    }
    return post, get


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
