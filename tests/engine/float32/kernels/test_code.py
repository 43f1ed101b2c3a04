"""What the code of the kernels is made of."""

import re

from numba import types

from minilm_np.engine.runtime import simd
from tests.support.kernel_bits import KERNELS, outputs


def test_no_float64_and_no_fast_arithmetic_in_the_kernels():
    """Python's wrapper turns a float argument into float32 by way of double, exactly; it is not part of a kernel."""
    before = {dispatcher: set(dispatcher.signatures) for dispatcher in KERNELS}  # made by other files of tests
    for out in outputs():  # compiles them
        del out
    for dispatcher in KERNELS:
        for ir in dispatcher.inspect_llvm().values():
            bodies = re.findall(r"^define .*?^}", ir, re.MULTILINE | re.DOTALL)
            kernels = [body for body in bodies if "PyObject" not in body and "@PyArg_UnpackTuple" not in body]
            assert kernels
            for body in kernels:
                if simd.TARGET != "none":
                    assert not re.search(r"\bdouble\b", body), dispatcher.py_func.__name__
                assert not re.search(r"\b(fast|reassoc|contract|afn|arcp|nnan|ninf|nsz)\b|fmuladd|vector\.reduce", body)
                assert not re.search(r"@llvm\.(roundeven|rint|nearbyint|maxnum|minnum|exp|pow)", body)
                assert not re.search(r"@(expf?|erff?|fmaf|sqrtf)\b", body)
        made = set(dispatcher.signatures) - before[dispatcher]
        literal = [found for found in made if any(isinstance(kind, types.Literal) for kind in found)]
        assert len(made) <= 1 and not literal, "a Python integer among the arguments has made a second version"
