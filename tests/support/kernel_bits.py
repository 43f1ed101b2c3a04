"""Run every kernel on fixed inputs; print the target, the SHA-256 of all outputs and facts about the code, as JSON.

A program for `test_kernel_targets.py`, which starts it once for each target. The inputs are integers divided by a power
of two, so they do not depend on how a library draws floats.
"""

import hashlib
import itertools
import json
import math
import re

import numpy as np

from minilm_np.engine.float32.kernels import activations, attention, embeddings, layer_norm, layout, linear, pooling
from minilm_np.engine.runtime import simd


def numbers(rng, *shape, scale=1.0):
    return (rng.integers(-(2**20), 2**20, shape) * (scale * 2.0**-20)).astype(np.float32)


def outputs():
    """The outputs of all kernels, over sizes with tails in every dimension and over subnormal and large values."""
    rng = np.random.default_rng(20240101)
    eps = np.float32(1e-12)
    for M, K, N in ((1, 16, 48), (10, 384, 96), (23, 300, 100), (5, 129, 17)):
        for scale in (1.0, 30.0, 2.0**-135):
            x, weight = numbers(rng, M, K, scale=scale), numbers(rng, N, K, scale=0.25)
            bias, residual, out = numbers(rng, N), numbers(rng, M, N), np.empty((M, N), np.float32)
            packed = np.zeros(layout.packed_shape(N, K), np.float32)
            layout.pack(weight, packed)
            ranges = 0, M, 0, len(packed)
            linear.linear(x, packed, bias * 0, out, *ranges)
            yield out.copy()
            linear.linear_gelu(x, packed, bias, out, *ranges)
            yield out.copy()
            linear.linear_residual(x, packed, bias, residual, out, *ranges)
            yield out.copy()
            for activation in (layout.GELU_TANH, layout.RELU, layout.SILU):
                found = out.copy()
                activations.activate(found, activation, 0, M, 0, N)
                yield found
            layer_norm.layer_norm(residual, bias, weight[:, 0].copy(), eps, out, 0, M)
            yield out.copy()
    for H, E, lengths in ((3, 32, (1, 7, 150)), (2, 20, (33, 2)), (1, 8, (40,)), (2, 64, (17, 129))):
        for scale in (1.0, 20.0):
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            qkv, context = numbers(rng, offsets[-1], 3 * H * E, scale=scale), np.empty((offsets[-1], H * E), np.float32)
            scratch, with_bias = np.empty(layout.scratch_size(max(lengths), E), np.float32), np.empty_like(context)
            softmax_scale = np.float32(1 / math.sqrt(E))
            for first, last in itertools.pairwise(offsets):
                arguments = qkv, first, last, first, last, 0, H, H, softmax_scale
                attention.attention(*arguments, numbers(rng, H, 399), with_bias, scratch)
                attention.attention(*arguments, np.empty((H, 0), np.float32), context, scratch)
            yield with_bias
            yield context
            for mode in range(pooling.LAST_TOKEN + 1):
                out = np.empty((len(lengths), H * E), np.float32)
                pooling.pooling(context, offsets, mode, out, 0, len(lengths))
                pooling.normalize(out, out, 0, len(lengths))
                yield out
    for N, D in ((9, 384), (4, 30)):
        ids, positions, types = rng.integers(0, 50, N), rng.integers(0, 20, N), np.arange(N) % 2
        word, position, token_type = numbers(rng, 50, D), numbers(rng, 20, D), numbers(rng, 2, D)
        out = np.empty((N, D), np.float32)
        weight, bias = numbers(rng, D), numbers(rng, D)
        embeddings.embeddings(ids, positions, types, word, position, token_type, weight, bias, eps, out, 0, N)
        yield out


def code_of(dispatchers):
    """All assembly and all LLVM IR of the kernels. They must be newly compiled: code from a cache has neither."""
    assembly = [text for dispatcher in dispatchers for text in dispatcher.inspect_asm().values()]
    ir = [text for dispatcher in dispatchers for text in dispatcher.inspect_llvm().values()]
    return "\n".join(assembly), "\n".join(ir)


KERNELS = (
    linear.linear, linear.linear_gelu, linear.linear_residual, layer_norm.layer_norm, attention.attention,
    embeddings.embeddings, pooling.pooling, pooling.normalize, activations.activate,
)  # fmt: skip


def main():
    digest = hashlib.sha256()
    for out in outputs():
        assert np.isfinite(out).all()
        digest.update(out.tobytes())
    assembly, ir = code_of(KERNELS)
    bodies = re.findall(r"^define .*?^}", ir, re.MULTILINE | re.DOTALL)
    kernels = [body for body in bodies if "PyObject" not in body and "@PyArg_UnpackTuple" not in body]
    facts = {
        "target": simd.TARGET,
        "sha256": digest.hexdigest(),
        "zmm": len(re.findall(r"\bvfmadd\w+ps\b.*%zmm", assembly)),
        "ymm": len(re.findall(r"\bvfmadd\w+ps\b.*%ymm", assembly)),
        "fma": len(re.findall(r"\bvfn?m(?:add|sub)", assembly)),
        "libm": sorted(set(re.findall(r"\b(?:fmaf?|expf?|erff?|sqrtf?|roundevenf?|floorf?|rintf?)@PLT", assembly))),
        "double": sum(len(re.findall(r"\bdouble\b", body)) for body in kernels),  # Python's wrappers convert by double
        "fast": sorted(set(re.findall(r"\b(?:fast|reassoc|contract|afn|fmuladd|vector\.reduce\.\w+)\b", ir))),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
