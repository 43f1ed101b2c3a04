"""The installed sentence-transformers' CrossEncoder."""

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from minilm_np.cross_encoder import CrossEncoder
from minilm_np.verify.interface import Array, TextPair, load_extra
from minilm_np.verify.torch_models import check_same_folder, loading, run_bert, versions


class SentenceTransformersPairs:
    """sentence-transformers on the folder of a cross-encoder: its own tokenizer and batches.

    A random model has no folder, so it is saved to a temporary one.
    """

    pairs = None
    activation = "Identity"

    def __init__(self, model: CrossEncoder) -> None:
        package = load_extra("sentence_transformers")
        self.name = f"sentence-transformers {versions('sentence-transformers', 'torch')}"
        self._ours = model
        if model.model_path is not None:
            self._theirs = _load(package, model.model_path)
            check_same_folder(model.model.encoder)
        else:
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(f"{folder}/model")
                self._theirs = _load(package, f"{folder}/model")
        self._theirs.max_seq_length = model.max_seq_length

    def scores(self, pairs: Sequence[TextPair]) -> Array:
        import torch

        found: Array = self._theirs.predict(
            [list(pair) for pair in pairs], prompt="", activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
        return found

    def intermediates(self, pair: TextPair) -> dict[str, Array]:
        import torch

        tokens = self._ours.model.tokenizer([pair])
        model = self._theirs.model
        hidden, steps = run_bert(model.bert, tokens.ids[0], every=True, types=tokens.token_type_ids[0])
        with torch.no_grad():
            dense = model.bert.pooler.dense(hidden[:, 0])
            pooled = model.bert.pooler.activation(dense)
            last = {"pooler.dense": dense, "pooler.activation": pooled, "classifier": model.classifier(pooled)}
        return steps | {name: np.asarray(tensor[0]) for name, tensor in last.items()}

    def token_ids(self, pairs: Sequence[TextPair]) -> list[list[int]]:
        return [self._theirs.preprocess([list(pair)], prompt="")["input_ids"][0].tolist() for pair in pairs]


def _load(package: Any, folder: str) -> Any:
    with loading("sentence-transformers", folder):
        return package.CrossEncoder(
            folder,
            device="cpu",
            local_files_only=True,
            model_kwargs={"attn_implementation": "eager", "dtype": "float32"},
        )
