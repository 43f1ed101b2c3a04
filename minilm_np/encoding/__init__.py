"""From a loaded model and texts to vectors: the code between the public class and the engines.

Reading order:

    loaded_model.py           a model as one frozen value: config, tokenizer, engine, settings, origin
    public_model.py           the attributes that the two public classes share
    pipeline.py               one call, from texts to vectors
    prompts.py                models whose pooling leaves out the tokens of a prompt
    pair_model.py             a cross-encoder as one frozen value; one call, from pairs of texts to logits
    pair_call_types.py        the types of `predict` and `rank` for type checkers
    pair_inputs.py            the arguments of `CrossEncoder`, checked
    long_texts.py             texts of any length by overlapping windows
    call_types.py             the types of `encode` for type checkers: which arguments give which result
    sentence_transformers.py  arguments that are accepted only because sentence-transformers has them
"""
