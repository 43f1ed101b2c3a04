"""What is compared, with which library, by which test. The page's tables have these rows, in this order."""

from typing import NamedTuple


class Row(NamedTuple):
    """One line of a table."""

    subject: str
    against: str  # the distribution whose results are expected, or which runs the adapter
    test: str  # file under tests/ and name of the function
    case: str = ""  # part of the parameters' id, which selects some cases of the test; "": all of them


ST, TRANSFORMERS = "sentence-transformers", "transformers"

_FAMILY = "test_encoder_families.py::test_every_family_has_the_vectors_of_sentence_transformers"
_HIDDEN = "model_files/test_families.py::test_a_folder_has_the_hidden_states_of_transformers"
_ACTIVATION = "model_files/test_families.py::test_a_saved_model_loads_here_and_in_transformers"
_TOKENIZER = "test_family_folders.py::test_other_tokenizers_give_the_ids_and_vectors_of_upstream"
_POOLING = "test_family.py::test_every_pooling_gives_the_vectors_of_sentence_transformers"
_DENSE = "test_family_folders.py::test_a_dense_module_gives_the_vectors_of_upstream"
_HEAD = "cross_encoder/test_parity.py::test_a_saved_folder_gives_both_libraries_the_same_scores"
_EVALUATOR = "encoding/test_sentence_transformers.py::test_evaluators_give_the_same_scores"

AREAS: dict[str, list[Row]] = {
    "Encoders": [
        *(
            Row(f"`{name}`", ST, _FAMILY, f"[{name}]")
            for name in ("bert", "distilbert", "roberta", "xlm-roberta", "mpnet")
        ),
        Row("all five, any sizes and any activation, in float64", TRANSFORMERS, _HIDDEN),
        Row(
            "`mpnet`, 300 tokens, in float64", TRANSFORMERS,
            "model_files/test_families.py::test_long_texts_of_mpnet_have_the_hidden_states_of_transformers",
        ),
    ],
    "Activations": [
        Row(f"`{name}`", TRANSFORMERS, _ACTIVATION, f"[{name}-")
        for name in ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")
    ],
    "Tokenizers": [
        Row("BERT's WordPiece", ST, "text/test_tokenizer.py::test_ids_are_those_of_sentence_transformers"),
        Row(
            "BERT's WordPiece from vocab.txt", TRANSFORMERS,
            "text/test_tokenizer_folders.py::test_a_folder_with_vocab_txt_alone_is_the_same",
        ),
        Row("pairs of texts", "tokenizers", "text/test_pairs.py::test_pairs_are_those_of_the_library"),
        Row("XLM-R's Unigram", ST, _TOKENIZER, "[multilingual MiniLM]"),
        Row("RoBERTa's byte-level BPE", ST, _TOKENIZER, "[RoBERTa]"),
        Row("the same with `add_prefix_space`", ST, _TOKENIZER, "[RoBERTa with spaces]"),
        Row("MPNet's WordPiece", ST, _TOKENIZER, "[MPNet]"),
        Row("the same without lower-casing", ST, _TOKENIZER, "[MPNet, cased]"),
    ],
    "Poolings and modules": [
        *(
            Row(f"`{mode}`", ST, _POOLING, f"[{mode}]")
            for mode in ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
        ),
        Row(
            "`include_prompt: false`", ST,
            "test_family_folders.py::test_a_prompt_is_left_out_of_the_pooling_as_upstream",
        ),
        Row(
            "with and without `Normalize`; prompts", ST,
            "test_family.py::test_every_shape_gives_the_vectors_of_sentence_transformers",
        ),
        Row("`Dense`, tanh", ST, _DENSE, "-tanh-"),
        Row("`Dense`, identity", ST, _DENSE, "-identity-"),
    ],
    "Cross-encoders": [
        Row(
            "any folder: sizes, labels, limits, activations", ST,
            "cross_encoder/test_parity.py::test_any_folder_gives_the_scores_of_sentence_transformers",
        ),
        Row(
            "pooler and classifier, in float64", TRANSFORMERS,
            "cross_encoder/test_reference.py::test_logits_and_steps_are_those_of_torch_in_float64",
        ),
        *(
            Row(f"activation `{name}`, one and three labels", ST, _HEAD, f"-{name}]")
            for name in ("Identity", "ReLU", "Sigmoid", "Tanh")
        ),
        Row(
            "the arguments of `predict`", ST,
            "cross_encoder/test_parity.py::test_the_same_call_has_the_same_result",
        ),
        Row("truncation of pairs", ST, "cross_encoder/test_parity.py::test_every_limit_truncates_alike"),
        Row("`rank`", ST, "cross_encoder/test_parity.py::test_a_ranking_is_the_same"),
    ],
    "Evaluators of sentence-transformers": [
        Row(f"`{name}`", ST, _EVALUATOR, f"[{kind}-")
        for name, kind in (
            ("EmbeddingSimilarityEvaluator", "similarity"),
            ("InformationRetrievalEvaluator", "retrieval"),
            ("TripletEvaluator", "triplets"),
            ("BinaryClassificationEvaluator", "classification"),
            ("ParaphraseMiningEvaluator", "mining"),
            ("RerankingEvaluator", "reranking"),
        )
    ],
    "Adapters": [
        Row(
            "scikit-learn", "scikit-learn",
            "integrations/test_scikit_learn.py::test_a_vectorizer_gives_the_encoders_vectors",
        ),
        Row(
            "LangChain", "langchain-core",
            "integrations/test_langchain.py::test_embeddings_are_the_vectors_of_the_encoder_with_its_prompts",
        ),
        Row(
            "LlamaIndex", "llama-index-core",
            "integrations/test_llama_index.py::test_embeddings_are_the_vectors_of_the_encoder_with_its_prompts",
        ),
        Row(
            "Haystack", "haystack-ai",
            "integrations/test_haystack.py::test_embeddings_are_the_vectors_of_the_encoder_with_its_prompts",
        ),
        Row(
            "Chroma", "chromadb",
            "integrations/test_chroma.py::test_an_embedding_function_gives_the_vectors_of_the_encoder_with_its_prompts",
        ),
        Row(
            "Chroma's default function, the same model", "chromadb",
            "integrations/test_chroma.py::test_a_collection_of_chromas_default_function_is_opened_after_a_check",
        ),
        Row("BERTopic", "bertopic", "integrations/test_bertopic.py::test_the_vectors_are_the_encoders"),
        Row("KeyBERT", "keybert", "integrations/test_keybert.py::test_the_scores_are_cosines_of_the_encoders_vectors"),
        Row(
            "mteb, against the scores of sentence-transformers", "mteb",
            "integrations/test_mteb.py::test_a_synthetic_task_gives_the_scores_of_sentence_transformers",
        ),
        Row(
            "LanceDB", "lancedb",
            "integrations/test_lancedb.py::test_a_table_stores_the_vectors_of_the_encoder_with_its_prompts",
        ),
        Row(
            "txtai", "txtai",
            "integrations/test_txtai.py::test_an_index_finds_by_the_vectors_of_the_encoder_with_its_prompts",
        ),
        Row("Ray Data", "ray", "integrations/test_ray.py::test_a_killed_worker_changes_no_bit"),
    ],
}  # fmt: skip
