"""An encoder's model under any variation, on some texts: token ids, hidden states, vectors.

Hidden states are cached by what they depend on: the token ids, the length with padding, and the changes inside the
encoder. So one run of the encoder serves every pooling, and two tokenizers with the same ids cost one run. In float32,
the encoder's own engine computes what its kernels can: texts without padding and without changes inside the encoder.
"""

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minilm_np import reference
from minilm_np.reference import Array, Nested, nest
from minilm_np.sentence_encoder import SentenceEncoder
from minilm_np.verify.variations import Make, Padding, Reweigh, Variation
from minilm_np.verify.varied_tokens import Tokens, VariedTokens

BATCH_TOKENS = 4096
CACHED_BYTES = 400_000_000  # of hidden states

Layers = dict[int, Array]  # hidden states (T, D) by layer, counted from the end: -1 is the last one


class Inside(NamedTuple):
    """All that the hidden states depend on, except the token ids and the dtype."""

    eps: float
    functions: tuple[tuple[str, Make], ...]
    weights: tuple[Reweigh, ...]
    attends_to_padding: bool
    token_types: str


class Run(NamedTuple):
    """One text or part of a text that the encoder computes."""

    ids: tuple[int, ...]
    T: int  # with padding
    inside: Inside
    dtype: Any


def _last(x: Array, pooled: Array) -> Array:  # (T, D), (T) -> (D)
    return x[int(np.flatnonzero(pooled)[-1])]


def _sum(x: Array, pooled: Array) -> Array:  # (T, D), (T) -> (D)
    return x[pooled].sum(axis=0)


def _weighted(x: Array, pooled: Array) -> Array:  # (T, D), (T) -> (D)
    positions = np.flatnonzero(pooled).astype(x.dtype) + 1
    return (x[pooled] * positions[:, None]).sum(axis=0) / positions.sum()


POOLINGS: dict[str, Callable[[Array, Array], Array]] = {"lasttoken": _last, "sum": _sum, "weightedmean": _weighted}


class VariedModel:
    """An encoder's model on some texts, under any variation."""

    def __init__(self, encoder: SentenceEncoder, texts: Sequence[str]) -> None:
        self.base = Variation(encoder.config)
        self.n_tokens = 0  # that the encoder has computed, padding included
        self._tokens = VariedTokens(encoder.tokenizer, encoder.config, texts)
        self._characters = [len(text) for text in texts]
        self._pad_id = encoder.tokenizer.pad_id
        self._engine = encoder.model.engine if encoder.compute_type == "float32" else None
        self._parameters = encoder.weights
        self._padded: dict[tuple[int, Padding], list[int]] = {}
        self._nested: dict[Any, Nested] = {}
        self._instances: dict[Any, Any] = {}
        self._states: dict[Run, Layers] = {}
        self._unpadded = self._inside(self.base, 0, 0)

    # ---- inputs ------------------------------------------------------------------------------------------------------

    def tokens(self, variation: Variation) -> list[list[Tokens]]:
        """Return the token ids of every text: of its parts, one without windows."""
        return self._tokens.parts(variation)

    def padded(self, variation: Variation) -> list[int]:
        """Return to how many tokens each text is padded; windows are not padded."""
        tokens = self.tokens(variation)
        key = id(tokens), variation.padding  # `VariedTokens` keeps each list
        if key not in self._padded:
            own = [sum(len(part.ids) for part in parts) for parts in tokens]
            if not variation.windows:
                own = variation.padding.lengths(own, self._characters, self.base.config.max_position_embeddings)
            self._padded[key] = own
        return self._padded[key]

    def acts_on(self, variation: Variation) -> Array:  # (n,) bool
        """Return on which texts the variation can change the vector; on the others it cannot."""
        if self.acts_everywhere(variation):
            return np.ones(len(self._characters), bool)
        return np.array([a != b for a, b in zip(self._inputs(self.base), self._inputs(variation), strict=True)], bool)

    def acts_everywhere(self, variation: Variation) -> bool:
        """Whether the variation changes more than the token ids and the padding."""
        b, v = self.base, variation
        return (
            self._inside(v, 0, 0) != self._unpadded
            or (v.layers, v.pools_special_tokens) != (b.layers, b.pools_special_tokens)
            or (v.pooling or v.config.pooling_mode, v.config.normalize) != (b.config.pooling_mode, b.config.normalize)
        )

    def same_inputs(self, a: Variation, b: Variation) -> Array:  # (n,) bool
        """Return for which texts two variations have the same token ids and padding."""
        return np.array([x == y for x, y in zip(self._inputs(a), self._inputs(b), strict=True)], bool)

    def _inputs(self, variation: Variation) -> list[tuple[list[Tokens], int]]:
        return list(zip(self.tokens(variation), self.padded(variation), strict=True))

    # ---- vectors -----------------------------------------------------------------------------------------------------

    def vectors(self, variation: Variation, rows: Sequence[int], dtype: Any = np.float32) -> Array:
        """Return the vectors of some texts, (B, D); NaN for a text without a token to pool."""
        v, model = variation, self._instance(variation.functions)
        tokens, lengths = self.tokens(v), self.padded(v)
        vectors = np.full((len(rows), v.config.hidden_size), np.nan, dtype)
        texts = {  # place -> the parts of the text, with their runs
            place: [(part, self._run_of(v, part, lengths[row], dtype)) for part in tokens[row]]
            for place, row in enumerate(rows)
            if all(part.content or (part.ids and v.pools_special_tokens) for part in tokens[row])
        }
        states = self._computed([run for parts in texts.values() for _, run in parts], v.layers)
        for place, parts in texts.items():
            pooled = [_pooled(model, states[run], part, v) for part, run in parts]
            if v.windows:
                pooled = [model.normalize(one) for one in pooled] if v.windows.normalizes else pooled
                sizes = [len(part.content) if v.windows.weighted else 1 for part, _ in parts]
                vector = np.average(pooled, axis=0, weights=sizes if any(sizes) else None).astype(dtype)
            else:
                vector = pooled[0]
            vectors[place] = model.normalize(vector) if v.config.normalize else vector
        return vectors

    def _run_of(self, v: Variation, part: Tokens, T: int, dtype: Any) -> Run:
        n = len(part.ids)
        T = n if v.windows else T
        return Run(part.ids, T, self._inside(v, n, T), np.dtype(dtype))

    def _inside(self, v: Variation, n: int, T: int) -> Inside:
        """What the hidden states of n tokens with padding to T depend on."""
        types = "ones" if v.token_types == "mask" and n == T else v.token_types
        return Inside(v.config.layer_norm_eps, v.functions, v.weights, v.attends_to_padding and n < T, types)

    # ---- the encoder -------------------------------------------------------------------------------------------------

    def _computed(self, runs: Iterable[Run], layers: tuple[int, ...]) -> dict[Run, Layers]:
        """The hidden states of runs, from the cache or computed."""
        found: dict[Run, Layers] = {}
        batches: dict[tuple[int, Inside, Any], list[Run]] = {}
        fast: list[Run] = []
        for run in dict.fromkeys(runs):
            cached = self._states.get(run, {})
            if cached.keys() >= {*layers}:
                found[run] = cached
            elif self._engine and layers == (-1,) and self._is_plain(run):
                fast.append(run)
            else:
                batches.setdefault((run.T, run.inside, run.dtype), []).append(run)
        if fast and self._engine:
            _, hidden = self._engine.encode_with_hidden_states(
                [run.ids for run in fast], normalize=False, report=lambda done: None
            )
            found |= {run: {-1: x} for run, x in zip(fast, hidden, strict=True)}
        for same in batches.values():
            size = max(1, BATCH_TOKENS // same[0].T)
            for start in range(0, len(same), size):
                batch = same[start : start + size]
                found |= dict(zip(batch, self._encoded(batch), strict=True))
        self.n_tokens += sum(run.T for run in [*fast, *(run for same in batches.values() for run in same)])
        self._keep(found)
        return found

    def _is_plain(self, run: Run) -> bool:
        return run.dtype == np.float32 and len(run.ids) == run.T and run.inside == self._unpadded

    def _keep(self, found: dict[Run, Layers]) -> None:
        """Cache hidden states; drop the oldest ones if there are too many."""
        for run, layers in found.items():
            self._states[run] = layers
        size = sum(x.nbytes for layers in self._states.values() for x in layers.values())
        while size > CACHED_BYTES:
            oldest = self._states.pop(next(iter(self._states)))
            size -= sum(x.nbytes for x in oldest.values())

    def _encoded(self, runs: Sequence[Run]) -> list[Layers]:
        """The hidden states of runs of one length, after every layer."""
        T, inside, dtype = runs[0].T, runs[0].inside, runs[0].dtype
        ids = np.full((len(runs), T), self._pad_id, np.int64)
        real = np.zeros(ids.shape, bool)
        for row, run in enumerate(runs):
            ids[row, : len(run.ids)], real[row, : len(run.ids)] = run.ids, True
        types = {"zeros": None, "ones": np.ones_like(ids), "mask": real.astype(np.int64)}[inside.token_types]
        mask = None if inside.attends_to_padding or real.all() else real
        model, weights = self._instance(inside.functions), self._weights(inside.weights, dtype)
        H = self.base.config.num_attention_heads
        x = model.embeddings(ids, types, weights["embeddings"], inside.eps)
        states = [x]
        for layer in weights["encoder"]["layer"].values():
            x = model.layer(x, mask, layer, H, inside.eps)
            states.append(x)
        return [{n - len(states): x[row] for n, x in enumerate(states)} for row in range(len(runs))]

    def _weights(self, changes: tuple[Reweigh, ...], dtype: Any) -> Nested:
        """The nested weights with these changes; float32 weights with one change are cached."""
        key = changes, dtype
        if key in self._nested:
            return self._nested[key]
        parameters = dict(self._parameters)
        for change in changes:
            parameters = {name: change(name, array) for name, array in parameters.items()}
        nested = nest(parameters, dtype)
        if not changes or (len(changes) == 1 and dtype == np.float32):
            self._nested[key] = nested
        return nested

    def _instance(self, functions: tuple[tuple[str, Make], ...]) -> Any:
        """A private second instance of `reference.py` with some functions replaced."""
        if not functions:
            return reference
        if functions not in self._instances:
            spec = importlib.util.find_spec(reference.__name__)
            assert spec is not None and spec.loader is not None  # it has been imported
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            for name, make in functions:
                setattr(module, name, make(module))
            self._instances[functions] = module
        return self._instances[functions]


def _pooled(model: Any, states: Layers, tokens: Tokens, v: Variation) -> Array:  # (D,)
    """One vector of the hidden states of a text or part."""
    x = np.mean([states[layer] for layer in v.layers], axis=0) if len(v.layers) > 1 else states[v.layers[0]]
    n = len(tokens.ids)
    pooled = np.arange(len(x)) < (len(x) if v.pools_padding else n)  # (T,)
    if not v.pools_special_tokens:
        pooled[: len(tokens.before)] = pooled[n - len(tokens.after) : n] = False
    mode = v.pooling or v.config.pooling_mode
    return POOLINGS[mode](x, pooled) if mode in POOLINGS else model.pooling(x, pooled, mode)
