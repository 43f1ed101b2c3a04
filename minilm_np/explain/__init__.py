"""Explain a text: arrays, and a page that shows them.

    from minilm_np import SentenceEncoder, explain

    explanation = explain.text(SentenceEncoder(), "A text")
    explanation.shares  # of each token in the sentence vector
    explanation.write("explanation.html")  # one file, which needs nothing but a browser

- `text.py`: the arrays of one text
- `text_page.py`: its page; `pipeline.py`: the first part of it
- `steps.py`: the steps of the pipeline: formulas, inputs, outputs
- `source.py`: the lines of `reference.py` that compute a step
"""

from minilm_np.explain.text import TextExplanation, text

__all__ = ["TextExplanation", "text"]
