"""`RequestError`: why a request is refused. Each API says it in its own JSON."""

from enum import Enum
from typing import Any, NamedTuple

from minilm_np.errors import MiniLMError


class _Answer(NamedTuple):
    openai_status: int
    openai_type: str
    openai_code: str | None
    tei_status: int
    tei_type: str


class Why(Enum):
    """Why a request is refused, with the status and the words of OpenAI's API and of text-embeddings-inference."""

    NOT_JSON = _Answer(400, "invalid_request_error", "invalid_json", 400, "Validation")
    INVALID = _Answer(400, "invalid_request_error", "invalid_value", 422, "Validation")
    NO_KEY = _Answer(401, "invalid_request_error", "invalid_api_key", 401, "Unauthorized")
    NO_MODEL = _Answer(404, "invalid_request_error", "model_not_found", 404, "Validation")
    NO_PATH = _Answer(404, "invalid_request_error", "not_found", 404, "Validation")
    NO_METHOD = _Answer(405, "invalid_request_error", "method_not_allowed", 405, "Validation")
    SLOW_BODY = _Answer(408, "invalid_request_error", "request_timeout", 408, "Validation")
    TOO_LARGE = _Answer(413, "invalid_request_error", "request_too_large", 413, "Validation")
    TOO_LONG = _Answer(413, "invalid_request_error", "context_length_exceeded", 413, "Validation")
    NOT_LOADED = _Answer(400, "invalid_request_error", "unsupported_by_model", 424, "Backend")
    NOT_SUPPORTED = _Answer(415, "invalid_request_error", "unsupported_media_type", 415, "Validation")
    OVERLOADED = _Answer(429, "rate_limit_error", "server_overloaded", 429, "Overloaded")
    FAILED = _Answer(500, "server_error", "internal_error", 500, "Backend")
    LATE = _Answer(503, "server_error", "timeout", 503, "Overloaded")
    CLOSING = _Answer(503, "server_error", "shutting_down", 503, "Unhealthy")


class RequestError(MiniLMError):
    """A request that is refused. The message says where, what was expected, what was found, and what to do.

    why: decides the status. param: the field of the request. retry_after: seconds after which to try again.
    ends: the connection is closed after the response, because the rest of the body is not read.
    """

    def __init__(
        self, why: Why, message: str, param: str | None = None, *, retry_after: int | None = None, ends: bool = False
    ) -> None:
        super().__init__(message)
        self.why, self.message, self.param = why, message, param
        self.retry_after, self.ends = retry_after, ends

    def answer(self, api: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the JSON object; api: "openai" or "tei"."""
        found = self.why.value
        if api == "openai":
            error = {
                "message": self.message, "type": found.openai_type, "param": self.param, "code": found.openai_code,
            }  # fmt: skip
            return found.openai_status, {"error": error}
        return found.tei_status, {"error": self.message, "error_type": found.tei_type}


class ClientGoneError(MiniLMError):
    """The client has closed its connection: nobody reads a response."""
