"""The other implementations, by the name, path or URL that a command line gives."""

import re
from pathlib import Path

from minilm_np.errors import InputTypeError, InputValueError
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify.endpoint import Endpoint
from minilm_np.verify.interface import Implementation
from minilm_np.verify.onnx_model import OnnxModel
from minilm_np.verify.stored_vectors import FORMATS, StoredVectors
from minilm_np.verify.torch_models import SentenceTransformersModel, TransformersModel
from minilm_np.verify.vector_stores import CHROMA_FILE, chroma_folder

__all__ = ["SOURCES", "Implementation", "open_implementation"]

SOURCES = (
    "sentence-transformers, transformers, MODEL.onnx, a file of vectors (.npy, .npz, .jsonl, .safetensors, .parquet, "
    ".csv, .tsv, .faiss, .index), a Chroma folder, or http(s)://.../v1/embeddings or .../embed"
)
PAIR_SOURCES = "sentence-transformers, a file of scores (.npy, .jsonl), or http(s)://.../rerank"  # of a cross-encoder


def as_implementation(source: str | Implementation, encoder: SentenceEncoder) -> Implementation:
    """Return an implementation as it is; open a source as `open_implementation` does, with its errors."""
    return open_implementation(source, encoder) if isinstance(source, str) else source


def open_implementation(source: str, encoder: SentenceEncoder) -> Implementation:
    """Open another implementation, to compare it with an encoder.

    source: `sentence-transformers` or `transformers` (the installed package loads the encoder's folder, or gets the
        weights of a random encoder); the path of an ONNX graph, or of a file of vectors (see `StoredVectors`); the
        folder of a Chroma database, with #COLLECTION if it has several collections; or the URL of an endpoint with the
        API /v1/embeddings (OpenAI) or /embed (text-embeddings-inference).

    Raises InputTypeError (not a str), InputValueError (no such source or file, or no vectors), MissingExtraError (a
    package is not installed), ImplementationError (the other implementation cannot load the folder or the graph).
    """
    if not isinstance(source, str):
        raise InputTypeError(f"source: expected a str, found {type(source).__name__}")
    if source == "sentence-transformers":
        return SentenceTransformersModel(encoder)
    if source == "transformers":
        return TransformersModel(encoder)
    if _is_url(source):
        return Endpoint(source, encoder)
    if not is_source(source):
        raise InputValueError(f"source: expected {SOURCES}, found {source!r}")
    if (chroma := chroma_folder(source)) is not None:
        return StoredVectors(*chroma)
    path = Path(source)
    if path.is_dir():
        raise InputValueError(
            f"source (--against, --vectors): {source} is a folder without {CHROMA_FILE}: expected a file of vectors, "
            "or the folder of a Chroma database"
        )
    if not path.is_file():
        raise InputValueError(f"source (--against, --vectors): there is no file {source}: check the path")
    return OnnxModel(path, encoder) if path.suffix.lower() == ".onnx" else StoredVectors(path)


def is_source(source: str) -> bool:
    """Return whether a string can be a source; a file need not exist."""
    known = Path(source).suffix.lower() in {".onnx", *FORMATS}
    named = source in ("sentence-transformers", "transformers") or _is_url(source)
    return named or known or Path(source).is_dir() or chroma_folder(source) is not None


def _is_url(source: str) -> bool:
    return re.match("https?://", source, re.IGNORECASE) is not None
