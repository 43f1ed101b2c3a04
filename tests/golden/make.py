"""Write vectors.json: the vectors of a few texts by sentence-transformers in float64, from the published weights.

Run it in the root of the checkout, with the extra `test` installed: python -m tests.golden.make
"""

import json
from pathlib import Path
from typing import Any

from minilm_np.model_files.hub import fetch

PATH = Path(__file__).with_name("vectors.json")

TEXTS = [
    "This is an example sentence",
    "Each sentence is converted",
    "",
    "Naïve café, RÉSUMÉ: 東京タワー 🗼 [SEP] x",
    "The quick brown fox jumps over the lazy dog. " * 40,
    "!",
]


def main() -> None:
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(str(fetch().path), device="cpu").double()
    vectors = model.encode(TEXTS)
    lengths = [len(ids) for ids in model.tokenizer(TEXTS, truncation=True, max_length=256)["input_ids"]]
    records = [
        {"text": text, "n_tokens": n_tokens, "embedding": [float(f"{number:.10g}") for number in vector]}
        for text, n_tokens, vector in zip(TEXTS, lengths, vectors, strict=True)
    ]
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    PATH.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
