"""The names that arguments of this package accept. This file imports nothing, so it does not slow down the start-up."""

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")  # the values of `similarity.SimilarityFunction`
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")  # of `quantization.quantize_embeddings`
