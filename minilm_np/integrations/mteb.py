"""mteb: an encoder for its tasks. Its scores are those that mteb gives the model in sentence-transformers."""

import hashlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minilm_np.engine.protocol import Vectors
from minilm_np.integrations import Backend, missing, settled, shared_encoder
from minilm_np.model_files.manifest import DEFAULT_MODEL
from minilm_np.sentence_encoder import SentenceEncoder

try:
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ScoringFunction
except ModuleNotFoundError as error:
    raise missing("mteb", "mteb", error) from error

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import BatchedInput, PromptType
    from torch.utils.data import DataLoader

_SIMILARITIES = {"cosine": ScoringFunction.COSINE, "dot": ScoringFunction.DOT_PRODUCT}  # those that mteb computes


class MiniLMEncoder(AbsEncoder):  # type: ignore[misc]  # mteb's types are not read
    """A model for `mteb.evaluate`, with mteb's choice among the prompts of the model.

    model: a model's name, or a folder that holds a model.
    backend, threads: as for `SentenceEncoder`.
    normalize_embeddings, truncate_dim: as for `SentenceEncoder.encode`.

    mteb stores results under the model's name, the options, and a revision: a digest of the model's fingerprint,
    prompts and similarity. So a model that gives other vectors is evaluated again. Raises as `SentenceEncoder` and its
    `encode`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        backend: Backend = "numba",
        threads: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> None:
        self.model: SentenceEncoder = shared_encoder(os.fspath(model), backend, threads)
        prompts, _ = self.validate_task_to_prompt_name(dict(self.model.prompts), raise_for_invalid_keys=False)
        self.model_prompts = prompts
        self._options: dict[str, Any] = {"normalize_embeddings": normalize_embeddings, "truncate_dim": truncate_dim}
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": f"minilm_np/{os.path.basename(settled(model))}",
                "revision": _revision(self.model),
                "experiment_kwargs": {name: value for name, value in self._options.items() if value} or None,
                "similarity_fn_name": _SIMILARITIES.get(self.model.similarity_fn_name),
                "max_tokens": self.model.max_seq_length,
                "embed_dim": truncate_dim or self.model.get_embedding_dimension(),
            }
        )

    def encode(
        self,
        inputs: "DataLoader[BatchedInput]",
        *,
        task_metadata: "TaskMetadata",
        hf_split: str,
        hf_subset: str,
        prompt_type: "PromptType | None" = None,
        **options: Any,
    ) -> Vectors:
        """Encode the texts of a task, with mteb's choice of the prompt. options: further ones of `encode`."""
        texts = [text for batch in inputs for text in batch["text"]]
        name = self.get_prompt_name(task_metadata, prompt_type)
        prompt = None if name is None else self.model_prompts[name]
        methods: dict[str, Callable[..., Vectors]] = {
            "query": self.model.encode_query,
            "document": self.model.encode_document,
        }
        encode = methods.get("" if prompt_type is None else prompt_type.value, self.model.encode)
        return encode(texts, prompt=prompt, **self._options, **options)


def _revision(encoder: SentenceEncoder) -> str:
    """A digest that changes when the vectors or the scores of a model may change."""
    identity = encoder.fingerprint() if encoder.backend == "numba" else "numpy"
    settings = encoder.prompts, encoder.default_prompt_name, encoder.similarity_fn_name, encoder.max_seq_length
    return hashlib.sha256(repr((identity, settings)).encode()).hexdigest()[:16]
