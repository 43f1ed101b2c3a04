"""The installed sentence-transformers and transformers; hooks record the output of every module."""

import contextlib
import importlib.metadata
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.errors import ImplementationError
from minilm_np.model_files.config import require_no_dense, require_plain_bert
from minilm_np.model_files.steady import identity
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify.interface import Array, load_extra


class SentenceTransformersModel:
    """sentence-transformers on the encoder's folder: its own tokenizer, batches and pooling.

    A random encoder has no folder. Then transformers' BertModel gets the weights and this package's token ids; pooling
    and normalisation are modules of sentence-transformers.
    """

    texts = None

    def __init__(self, encoder: SentenceEncoder) -> None:
        package = load_extra("sentence_transformers")
        self.name = f"sentence-transformers {versions('sentence-transformers', 'torch')}"
        self._encoder, self._model = encoder, None
        if encoder.folder is None:
            config = encoder.config
            require_no_dense(config, "sentence-transformers without a model folder")
            modules = load_extra("sentence_transformers.models")
            self._bert = _bert_model(encoder)
            self._pooling = modules.Pooling(config.hidden_size, pooling_mode=config.pooling_mode)
            self._later = [("normalize", modules.Normalize())] if config.normalize else []
            return
        with loading("sentence-transformers", encoder.model_path):
            self._model = package.SentenceTransformer(
                str(encoder.folder.path), device="cpu", local_files_only=True,
                model_kwargs={"attn_implementation": "eager", "dtype": "float32"},
            )  # fmt: skip
        check_same_folder(encoder.model)
        self._model.max_seq_length, self._model.truncate_dim = encoder.max_seq_length, None
        self._bert, self._pooling = self._model[0].auto_model, self._model[1]
        names = ["dense"] * (encoder.config.dense_size is not None) + ["normalize"] * encoder.config.normalize
        self._later = [(name, self._model[number]) for number, name in enumerate(names, 2)]

    def vectors(self, texts: Sequence[str]) -> Array:
        if self._model is not None:
            found: Array = self._model.encode(list(texts), prompt="", convert_to_numpy=True, show_progress_bar=False)
            return found.reshape(len(texts), -1)
        last = self._later[-1][0] if self._later else "pooling"
        return _stacked([text[last] for text in self._steps(texts, every=False)], self._encoder)

    def intermediates(self, texts: Sequence[str]) -> list[dict[str, Array]]:
        return list(self._steps(texts, every=True))

    def _steps(self, texts: Sequence[str], *, every: bool) -> Iterator[dict[str, Array]]:
        import torch

        for ids in self._encoder.tokenizer(texts).ids:
            hidden, steps = run_bert(self._bert, ids, every=every)
            with torch.no_grad():
                features = {"token_embeddings": hidden, "attention_mask": torch.ones(1, len(ids), dtype=torch.int64)}
                features = self._pooling(features)
                steps["pooling"] = features["sentence_embedding"][0].numpy()
                for name, module in self._later:
                    features = module(features)
                    steps[name] = features["sentence_embedding"][0].numpy()
            yield steps

    def token_ids(self, texts: Sequence[str]) -> list[list[int]] | None:
        if self._model is None:
            return None
        # `tokenize` before sentence-transformers 6
        tokenize = getattr(self._model, "preprocess", None) or self._model.tokenize
        return [tokenize([text])["input_ids"][0].tolist() for text in texts]


class TransformersModel:
    """transformers' model and tokenizer on the encoder's folder, then the pooling of its config.

    A random encoder has no folder. Then BertModel gets the weights and this package's token ids.
    """

    texts = None

    def __init__(self, encoder: SentenceEncoder) -> None:
        package = load_extra("transformers")
        load_extra("torch")
        self.name = f"transformers {versions('transformers', 'torch')}"
        require_no_dense(encoder.config, "transformers")
        self._encoder, self._tokenizer = encoder, None
        if encoder.folder is None:
            self._bert = _bert_model(encoder)
            return
        folder = str(encoder.folder.path / encoder.config.transformer_path)
        with loading("transformers", encoder.model_path):
            self._bert = package.AutoModel.from_pretrained(
                folder, attn_implementation="eager", local_files_only=True, dtype="float32"
            ).eval()
            self._tokenizer = package.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        check_same_folder(encoder.model)

    def vectors(self, texts: Sequence[str]) -> Array:
        last = "normalize" if self._encoder.config.normalize else "pooling"
        ids = self.token_ids(texts) or self._encoder.tokenizer(texts).ids
        return _stacked([self._steps(text, every=False)[last] for text in ids], self._encoder)

    def intermediates(self, texts: Sequence[str]) -> list[dict[str, Array]]:
        return [self._steps(ids, every=True) for ids in self._encoder.tokenizer(texts).ids]

    def _steps(self, ids: Sequence[int], *, every: bool) -> dict[str, Array]:
        import torch

        hidden, steps = run_bert(self._bert, ids, every=every)
        tokens, mode = hidden[0], self._encoder.config.pooling_mode
        with torch.no_grad():
            if mode == "cls":
                vector = tokens[0]
            elif mode == "max":
                vector = tokens.max(dim=0).values
            elif mode == "lasttoken":
                vector = tokens[-1]
            elif mode == "weightedmean":
                positions = torch.arange(1, len(ids) + 1, dtype=tokens.dtype)
                vector = (tokens * positions[:, None]).sum(dim=0) / positions.sum()
            else:
                vector = tokens.sum(dim=0) / (len(ids) if mode == "mean" else len(ids) ** 0.5)
            steps["pooling"] = vector.numpy()
            if self._encoder.config.normalize:
                steps["normalize"] = torch.nn.functional.normalize(vector, dim=0).numpy()
        return steps

    def token_ids(self, texts: Sequence[str]) -> list[list[int]] | None:
        if self._tokenizer is None:
            return None
        config = self._encoder.config
        cut = {"truncation": True, "max_length": config.max_seq_length, "padding": False}
        return [
            list(self._tokenizer(text.lower() if config.do_lower_case else text, **cut).input_ids) for text in texts
        ]


def check_same_folder(model: LoadedModel) -> None:
    """Raise ImplementationError if the model's folder, which another library just read, is not what it was."""
    if model.origin and model.origin_identity and identity(model.origin.path) != model.origin_identity:
        raise ImplementationError(
            f"{model.origin.path}: the folder was replaced or changed after the model had been loaded from it: load "
            "the model again"
        )


def _bert_model(encoder: SentenceEncoder) -> Any:
    """transformers' BertModel with the encoder's weights and plain (eager) attention, for inference."""
    require_plain_bert(encoder.config, "transformers without a model folder")
    torch, transformers, config = load_extra("torch"), load_extra("transformers"), encoder.config
    model = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=config.vocab_size,
            max_position_embeddings=config.max_position_embeddings,
            type_vocab_size=config.type_vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            layer_norm_eps=config.layer_norm_eps,
            attn_implementation="eager",
        ),
        add_pooling_layer=False,
    ).eval()
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in encoder.weights.items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if unexpected or any(name.endswith(("weight", "bias")) for name in missing):
        raise ImplementationError(
            f"transformers' BertModel does not accept this model's weights: missing {missing}, unexpected {unexpected}"
        )
    return model


def run_bert(
    bert: Any, ids: Sequence[int], *, every: bool, types: Sequence[int] | None = None
) -> tuple[Any, dict[str, Array]]:
    """Return the hidden states of one text, (1, T, D), and with `every` the outputs of the modules, by name.

    types: the token types; None: all are 0.

    torch has no module for the attention scores. Modules that return the output of their last part are left out.
    """
    import torch

    outputs: dict[str, Any] = {}

    def keep(name: str) -> Any:
        return lambda module, arguments, output: outputs.update({name: output})

    with contextlib.ExitStack() as stack:
        for name, module in bert.named_modules() if every else ():
            kind = name.rpartition(".")[2]
            inner = name.endswith(("attention.output", ".intermediate", ".output")) or kind.isdigit()
            if "." in name and not inner and kind not in ("dropout", "attention") and not name.startswith("pooler"):
                stack.callback(module.register_forward_hook(keep(name)).remove)
        with torch.no_grad():
            inputs = {
                "input_ids": torch.tensor([list(ids)]),
                "attention_mask": torch.ones(1, len(ids), dtype=torch.int64),
            }
            if types is not None:
                inputs["token_type_ids"] = torch.tensor([list(types)])
            hidden = bert(**inputs).last_hidden_state
    steps = {}
    for name, output in outputs.items():
        if name.endswith("attention.self"):
            steps[f"{name}.context"], steps[f"{name}.probs"] = (tensor[0].numpy() for tensor in output)
        elif isinstance(output, torch.Tensor):
            steps[name] = output[0].numpy()
    return hidden, steps


def _stacked(vectors: list[Array], encoder: SentenceEncoder) -> Array:
    return np.stack(vectors) if vectors else np.empty((0, encoder.config.vector_size), np.float32)


def versions(first: str, *others: str) -> str:
    rest = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in others)
    return f"{importlib.metadata.version(first)} ({rest})"


@contextlib.contextmanager
def loading(package: str, folder: str | None) -> Iterator[None]:
    """Turns every exception of a package's loader into an ImplementationError; its warnings and bars are not shown."""
    logging = load_extra("transformers.utils.logging")
    bar, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # else ten lines about the unused pooler of every such checkpoint
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        raise ImplementationError(
            f"{package} cannot load {folder}: {type(error).__name__}: {str(error)[:300]}"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
