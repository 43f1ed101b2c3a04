"""Explain a text, or the similarity of two: arrays, and a page that shows them.

    from minilm_np import SentenceEncoder, explain

    explanation = explain.text(SentenceEncoder(), "A text")
    explanation.shares  # of each token in the sentence vector
    explanation.write("explanation.html")  # one file, which needs nothing but a browser

    pair = explain.similarity(SentenceEncoder(), "A text", "Another text")
    pair.contributions  # of each pair of tokens to the cosine
    pair.write("similarity.html")

- `text.py`: the arrays of one text
- `text_page.py`: its page; `pipeline.py`: the first part of it
- `steps.py`: the steps of the pipeline: formulas, inputs, outputs
- `source.py`: the lines of `reference.py` that compute a step
- `similarity.py`: why two texts are as similar as they are
- `gradients.py`: integrated gradients of a cosine
- `similarity_page.py`: the page of two texts
"""

from minilm_np.explain.similarity import Similarity, similarity
from minilm_np.explain.text import TextExplanation, text

__all__ = ["Similarity", "TextExplanation", "similarity", "text"]
