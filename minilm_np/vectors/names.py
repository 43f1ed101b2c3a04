"""The names that options of this room accept. Imports nothing, so that checking a name costs a start no time."""

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")  # the values of `similarity.SimilarityFunction`
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")  # of `quantization.quantize_embeddings`
