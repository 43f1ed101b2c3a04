"""The readable cross-encoder: equal to transformers' BertForSequenceClassification in float64."""

import numpy as np
import pytest

from minilm_np import reference
from minilm_np.model_files.checkpoint import iter_checkpoint, read_head
from minilm_np.model_files.cross_encoder_files import load_cross_encoder_config
from tests.support.compare import assert_close
from tests.support.pair_models import PairShape, write_pair_folder


@pytest.mark.parametrize("labels", [1, 3])
def test_logits_and_steps_are_those_of_torch_in_float64(labels: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    import torch
    from transformers import BertForSequenceClassification

    folder = write_pair_folder(tmp_path_factory.mktemp("pairs"), PairShape(labels=labels))
    model = BertForSequenceClassification.from_pretrained(str(folder), attn_implementation="eager").double().eval()
    config, head, _ = load_cross_encoder_config(folder)
    arrays = dict(iter_checkpoint(folder, config, classifier=True)) | read_head(folder, config, labels)
    weights = reference.nest(arrays, np.float64)
    generator = np.random.default_rng(labels)
    ids, types = generator.integers(0, 200, (2, 9)), np.repeat([[0] * 5 + [1] * 4], 2, axis=0)
    steps: dict[str, reference.Array] = {}

    def record(name: str, x: reference.Array) -> reference.Array:
        steps[name] = x
        return x

    found = reference.classify(ids, types, weights, config, record=record)
    with torch.no_grad():
        inputs = torch.from_numpy(ids), torch.ones(2, 9, dtype=torch.long), torch.from_numpy(types)
        expected = model(*inputs).logits.numpy()
        pooled = model.bert(*inputs).pooler_output.numpy()
    assert found.shape == (2, labels)
    assert_close(found, expected, rel=1e-12)
    assert_close(steps["pooler.activation"], pooled, rel=1e-12)
    assert_close(reference.classify(ids[0], types[0], weights, config), found[0], rel=1e-12)
    assert len(head.labels) == labels
