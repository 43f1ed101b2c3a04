"""txtai: a vector model for its `Embeddings`. A saved index stores its name, and txtai reopens the index with it."""

from typing import Any, Literal, cast

from minilm_np._checks import one_of
from minilm_np.engine.protocol import Vectors
from minilm_np.errors import InputValueError
from minilm_np.integrations import Options, encode, missing, settled, shared_encoder
from minilm_np.model_files.manifest import DEFAULT_MODEL
from minilm_np.sentence_encoder import SentenceEncoder

try:
    from txtai.vectors import Vectors as VectorModel
except ModuleNotFoundError as error:
    raise missing("txtai", "txtai", error) from error

_PURPOSES: dict[str | None, Literal["query", "document"]] = {"query": "query", "data": "document"}


class MiniLMVectors(VectorModel):  # type: ignore[misc]  # txtai's types are not read
    """Sentence vectors for txtai. Queries and documents get the prompts of the model, if it has any.

    txtai creates it for a configuration with `method="minilm_np.integrations.txtai.MiniLMVectors"`, and with:
    path: a model's name, or a folder that holds a model; stored as an absolute path.
    vectors: a dict with any of `backend`, `threads`, `normalize_embeddings` and `truncate_dim`, which are those of
        `SentenceEncoder` and of its `encode`.

    txtai scales all vectors to unit length. Raises as `SentenceEncoder` and its `encode`; txtai wraps an error of the
    configuration in an ImportError.
    """

    def __init__(self, config: dict[str, Any], scoring: Any = None, models: Any = None) -> None:
        config["path"] = settled(config.get("path") or DEFAULT_MODEL)
        options = {"backend": "numba", "threads": None, "normalize_embeddings": False, "truncate_dim": None}
        for name in (given := config.get("vectors") or {}):
            if name not in options:
                raise InputValueError(f"vectors: expected {one_of(options)}, found {name!r}")
        self.options = cast(Options, {"model": config["path"], **options, **given})
        super().__init__(config, scoring, models)

    def loadmodel(self, path: str) -> SentenceEncoder:
        """The model, loaded."""
        return shared_encoder(path, self.options["backend"], self.options["threads"])

    def encode(self, data: list[str], category: str | None = None) -> Vectors:
        """The vectors of texts. category: "query", "data" for documents, or None."""
        return encode(data, **self.options, purpose=_PURPOSES.get(category, ""), name="data")
