"""Functions on vectors, which may come from any model. `minilm_np.util` has the public names.

Reading order:

    names.py         the names of similarities and precisions
    similarity.py    score every pair of vectors, or corresponding vectors, by cosine, dot product or distance
    mining.py        search a corpus, find paraphrases, find communities; memory is bounded by chunks
    quantization.py  store vectors as int8, uint8 or single bits
"""
