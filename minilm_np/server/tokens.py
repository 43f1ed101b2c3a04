"""Checked requests to token ids that fit the model."""

from collections.abc import Iterator

import orjson

from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.encoding.pair_model import PairModel
from minilm_np.errors import InputValueError
from minilm_np.server.failures import RequestError, Why
from minilm_np.server.requests import Inputs, RerankRequest, TokenizeRequest
from minilm_np.text.pairs import TokenizedPairs

MEASURED = 100_000  # characters of a text whose tokens are counted for an error; a tenth of a second


def prefix_of(model: LoadedModel, prompt_name: str | None) -> str:
    """Return the prompt to put before each text. Raises RequestError: the model has no such prompt."""
    try:
        return model.settings.prefix(prompt_name)
    except InputValueError as error:
        raise RequestError(Why.INVALID, str(error), "prompt_name") from None


def token_ids(model: LoadedModel, inputs: Inputs, prefix: str, truncate: bool) -> list[list[int]]:
    """Return the token ids of each text, [CLS] and [SEP] included.

    Token ids of the request are used as they are, between [CLS] and [SEP] unless they already are; they get no prompt.
    Raises RequestError: a text is longer than the limit and is not to be truncated, or an id is not in the vocabulary.
    """
    if inputs.ids:
        return [_completed(model, inputs, number, truncate) for number in range(len(inputs.ids))]
    texts = [prefix + text for text in inputs.texts] if prefix else inputs.texts
    tokenized = model.tokenizer(texts)
    if not truncate and True in tokenized.truncated:
        number = tokenized.truncated.index(True)
        raise _too_long(model, inputs, number, _length(model, texts[number]))
    if [] in tokenized.ids:
        raise RequestError(
            Why.INVALID,
            f"{inputs.place(tokenized.ids.index([]))}: expected at least one token, found none; the tokenizer of this "
            "model adds no special tokens to a text: remove the text",
            inputs.of,
        )
    return tokenized.ids


def pair_ids(model: PairModel, request: RerankRequest) -> TokenizedPairs:
    """Return the token ids and types of the query with each text. The model's default prompt is put before the query.

    Raises RequestError: a pair is longer than the limit and is not to be truncated.
    """
    query = model.encoder.settings.prefix() + request.query
    pairs = [(query, text) for text in request.inputs.texts]
    tokenized = model.tokenizer(pairs)
    if not request.truncate and True in tokenized.truncated:
        number = tokenized.truncated.index(True)
        raise RequestError(
            Why.TOO_LONG,
            f"{request.inputs.place(number)}: the query and this text have {_pair_length(model, *pairs[number])}; the "
            f"limit of the model is {model.encoder.config.max_seq_length} tokens: split the longer one, or send "
            '"truncate": true to use their beginnings',
            request.inputs.of,
        )
    return tokenized


def _completed(model: LoadedModel, inputs: Inputs, number: int, truncate: bool) -> list[int]:
    """The token ids of one text of a request, between the model's special tokens and within its limit."""
    ids, most = inputs.ids[number], model.config.vocab_size - 1
    if min(ids) < 0 or max(ids) > most:
        wrong = next(one for one in ids if not 0 <= one <= most)
        raise RequestError(
            Why.INVALID,
            f"{inputs.place(number)}: expected token ids from 0 to {most}, found {wrong}: send the text, or the ids of "
            "this model's own tokenizer",
            inputs.of,
        )
    before, after = model.tokenizer.before, model.tokenizer.after
    if ids[: len(before)] == before and ids[len(ids) - len(after) :] == after and len(ids) >= len(before + after):
        ids = ids[len(before) : len(ids) - len(after)]
    room = model.config.max_seq_length - len(before) - len(after)
    if len(ids) > room and not truncate:
        raise _too_long(model, inputs, number, f"{len(ids) + len(before) + len(after):,} tokens")
    return before + ids[:room] + after


def _length(model: LoadedModel, text: str) -> str:
    """How long a text is, in tokens if that can be counted soon."""
    if len(text) > MEASURED:
        return f"{len(text):,} characters"
    return f"{model.tokenizer.measure(text)[0]:,} tokens ({len(text):,} characters)"


def _pair_length(model: PairModel, query: str, text: str) -> str:
    """How long a pair is, special tokens included, as `_length` says it."""
    n_characters = len(query) + len(text)
    if n_characters > MEASURED:
        return f"{n_characters:,} characters"
    n_tokens = model.tokenizer.measure(query, text)
    return f"{n_tokens:,} tokens ({n_characters:,} characters)"


def _too_long(model: LoadedModel, inputs: Inputs, number: int, length: str) -> RequestError:
    return RequestError(
        Why.TOO_LONG,
        f"{inputs.place(number)}: the text has {length}; the limit of the model is {model.config.max_seq_length} "
        'tokens: split it, or send "truncate": true to use its beginning',
        inputs.of,
    )


def described(model: LoadedModel, request: TokenizeRequest, prefix: str) -> bytes:
    """Return JSON: for each text an array of its tokens, with id, text, special, and the characters start to stop."""
    return (
        b"["
        + b",".join(_described(model, prefix + text, request.add_special_tokens) for text in request.inputs.texts)
        + b"]"
    )


def _described(model: LoadedModel, text: str, add_special_tokens: bool) -> bytes:
    tokenizer = model.tokenizer
    special = tokenizer.before, tokenizer.after
    parts = [_special(model, special[0])] if add_special_tokens else []
    parts += _content(model, text)
    parts += [_special(model, special[1])] if add_special_tokens else []
    return b"[" + b",".join(part[1:-1] for part in parts if part != b"[]") + b"]"


def _special(model: LoadedModel, ids: list[int]) -> bytes:
    return orjson.dumps(
        [{"id": one, "text": model.tokenizer.token(one), "special": True, "start": None, "stop": None} for one in ids]
    )


def _content(model: LoadedModel, text: str) -> Iterator[bytes]:
    """The tokens of the text itself, as JSON arrays of bounded size."""
    for begin, encodings in model.tokenizer.encodings(text):
        for encoding in encodings:
            yield orjson.dumps(
                [
                    {
                        "id": one,
                        "text": text[begin + start : begin + stop],
                        "special": False,
                        "start": begin + start,
                        "stop": begin + stop,
                    }
                    for one, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True)
                ]
            )
