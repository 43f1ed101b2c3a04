"""Explain a similarity: arrays, and pages that show them.

- `similarity.py`: why two texts are as similar as they are
- `gradients.py`: integrated gradients of a cosine
"""

from minilm_np.explain.similarity import Similarity, similarity

__all__ = ["Similarity", "similarity"]
