"""`ModelSettings`: a model's prompts, similarity function and vector size, from config_sentence_transformers.json.

A prompt is text that is put before each text, such as "query: " for e5. `ModelSettings.prefix` selects it.
"""

import logging
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilm_np._checks import check_optional_int, one_of, short_repr
from minilm_np.errors import ConfigError, InputTypeError, InputValueError
from minilm_np.model_files.json_files import read_object
from minilm_np.vectors.names import SIMILARITIES

if TYPE_CHECKING:
    from minilm_np.vectors.similarity import SimilarityFunction


FILE = "config_sentence_transformers.json"

# names of prompts for encode_query and encode_document, which use the first one that the model has
QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")

# class of sentence-transformers -> class of this package that loads its folders
_CLASSES = {"SentenceTransformer": "SentenceEncoder", "CrossEncoder": "CrossEncoder"}

_logger = logging.getLogger("minilm_np")


@dataclass(frozen=True)
class ModelSettings:
    """The values of config_sentence_transformers.json. The defaults are those of sentence-transformers."""

    prompts: dict[str, str] = field(default_factory=lambda: {"query": "", "document": ""})
    default_prompt_name: str | None = None
    similarity_fn_name: str = "cosine"
    truncate_dim: int | None = None

    def prefix(self, prompt_name: str | None = None, prompt: str | None = None) -> str:
        """The text to put before each text: `prompt`, else the prompt called `prompt_name`, else the default one or "".

        Raises InputTypeError (the prompt is not a str), InputValueError (the model has no prompt of that name).
        """
        if prompt is not None:
            if not isinstance(prompt, str):
                raise InputTypeError(f"prompt: expected a str or None, found {type(prompt).__name__}")
            if not _is_unicode(prompt):
                raise InputValueError(f"prompt: expected Unicode text, found a lone surrogate in {prompt!r:.80}")
            if prompt_name is not None:
                _logger.warning("both prompt and prompt_name are given: prompt_name %r is ignored", prompt_name)
            return prompt
        if prompt_name is None:
            return "" if self.default_prompt_name is None else self.prompts.get(self.default_prompt_name, "")
        if not _has(self.prompts, prompt_name):
            raise InputValueError(f"prompt_name: expected {one_of(self.prompts)}, found {prompt_name!r}")
        return self.prompts[prompt_name]

    def first_prompt(self, names: Sequence[str]) -> str | None:
        """The first of the names that is the name of a prompt; None if none is."""
        return next((name for name in names if name in self.prompts), None)

    def dimension(self, D: int, truncate_dim: int | None = None) -> int:
        """The length of a vector of a model with D dimensions: `truncate_dim`, else that of the settings, at most D.

        Raises InputTypeError, InputValueError.
        """
        truncate_dim = self.truncate_dim if truncate_dim is None else truncate_dim
        return min(D, check_optional_int("truncate_dim", truncate_dim, 1) or D)


def load_settings(folder: Path, model_type: str = "SentenceTransformer") -> ModelSettings:
    """Read config_sentence_transformers.json, or return the defaults if it is missing.

    model_type: the class of sentence-transformers that the folder is for.
    Raises ConfigError: it is broken, or requires something that is not implemented.
    """
    path = folder / FILE
    values = read_object(path, optional=True)
    found = values.get("model_type")
    if isinstance(found, str) and found != model_type and found in _CLASSES:
        raise ConfigError(
            f"{path}: model_type: expected {model_type!r}, found {found!r}: use minilm_np.{_CLASSES[found]}"
        )
    known = {"query": "", "document": ""} if model_type == "SentenceTransformer" else {}
    prompts = _updated(known, values.get("prompts"), f"{path}: prompts", ConfigError)
    name = values.get("default_prompt_name")
    if name is not None and not _has(prompts, name):
        raise ConfigError(f"{path}: default_prompt_name: expected {one_of(prompts)} or null, found {short_repr(name)}")
    for key, expected in (
        ("model_type", (model_type,)),
        ("similarity_fn_name", SIMILARITIES),
    ):
        if values.get(key) not in (None, *expected):
            raise ConfigError(
                f"{path}: {key} {short_repr(values[key])} is not implemented: expected {one_of(expected)}"
            )
    dimension = values.get("truncate_dim")
    if dimension is not None and (type(dimension) is not int or dimension < 1):
        raise ConfigError(
            f"{path}: truncate_dim: expected an integer of at least 1, or null, found {short_repr(dimension)}"
        )
    return ModelSettings(prompts, name, values.get("similarity_fn_name") or "cosine", dimension)


def overridden(
    settings: ModelSettings,
    prompts: Mapping[str, str] | None,
    default_prompt_name: str | None,
    similarity_fn_name: "str | SimilarityFunction | None",
    truncate_dim: int | None,
) -> ModelSettings:
    """The model's values, overridden by those of the caller that are not None.

    Raises InputTypeError, InputValueError.
    """
    prompts = _updated(settings.prompts, prompts, "prompts", InputTypeError)
    if default_prompt_name is None:
        default_prompt_name = settings.default_prompt_name
    elif not _has(prompts, default_prompt_name):
        raise InputValueError(f"default_prompt_name: expected {one_of(prompts)} or None, found {default_prompt_name!r}")
    similarity = settings.similarity_fn_name if similarity_fn_name is None else check_similarity(similarity_fn_name)
    return ModelSettings(
        prompts, default_prompt_name, similarity, settings.truncate_dim if truncate_dim is None else truncate_dim
    )


def check_similarity(name: object) -> str:
    """The name of a similarity function, given by name or as a SimilarityFunction of this or the other library.

    Raises InputValueError.
    """
    value = getattr(name, "value", name)
    if not _has(SIMILARITIES, value):
        raise InputValueError(f"similarity_fn_name: expected {one_of(SIMILARITIES)}, found {name!r}")
    return str(value)


def _updated(known: Mapping[str, str], more: Any, what: str, error: type[Exception]) -> dict[str, str]:
    """The known prompts, updated by `more`. A text of None keeps the known prompt, or means "".

    what: the beginning of an error's message. error: its class.
    """
    if more is None:
        return dict(known)
    if not isinstance(more, Mapping):
        raise error(f"{what}: expected a mapping of names to strings, found {short_repr(more)}")
    for name, text in more.items():
        if not isinstance(name, str) or not isinstance(text, str | None) or not _is_unicode(name + (text or "")):
            raise error(f"{what}: expected Unicode names and strings, found {short_repr(name)}: {short_repr(text)}")
    return {**known, **{name: known.get(name, "") if text is None else text for name, text in more.items()}}


def _is_unicode(text: str) -> bool:
    """Whether a str can be encoded in UTF-8, which it cannot if it contains a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _has(names: Container[str], name: Any) -> bool:
    return isinstance(name, str) and name in names
