"""The list of engines: what each one promises, what it needs, and how it is created.

Code outside `minilm_np/engine/` does not name a particular engine; it uses the `EngineKind` that `find` returns. To add
an engine, add an entry to `KINDS`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from minilm_np._checks import check_choice
from minilm_np._forks import no_fork
from minilm_np.engine.protocol import Engine, Packed, Vectors
from minilm_np.errors import InputValueError
from minilm_np.model_files.config import ModelConfig

NamedWeights = Iterable[tuple[str, Vectors]]  # (name, float32 array) for every parameter
Reread = Callable[[], NamedWeights]  # reads the same weights once more

# (config, weights, threads, dtype, reread) -> engine; the imports are inside, because LLVM takes time to load
Factory = Callable[[ModelConfig, NamedWeights | Packed, int | None, str, Reread | None], Engine]


@dataclass(frozen=True)
class EngineKind:
    """One kind of engine."""

    backend: str
    compute_type: str  # of the dense layers
    contract: int | str | None  # the numerical contract that fixes every bit of a vector; None: the bits are not fixed
    dtypes: tuple[str, ...]  # dtypes of the computation; the first one is the default
    own_threads: bool  # whether the engine has helper threads; otherwise its BLAS decides
    packages: tuple[str, ...]  # packages whose versions decide its results; those that are not installed decide nothing
    factory: Factory
    instructions: Callable[[], str] | None = None  # names the instructions used on this machine, if the engine chooses
    kernels: Callable[[], str] | None = None  # says where its compiled code comes from, if it has any
    packing: Callable[[], str] | None = None  # identifies the layout of packed weights and the code that packs them

    @property
    def name(self) -> str:
        """The backend, with the compute type if that is not float32: "numba", "numba, int16"."""
        return self.backend if self.compute_type == "float32" else f"{self.backend}, {self.compute_type}"

    def make(
        self,
        config: ModelConfig,
        weights: NamedWeights | Packed,
        threads: int | None = None,
        dtype: str = "float32",
        reread: Reread | None = None,
    ) -> Engine:
        """Return an engine of this kind with these weights.

        weights: may be `Packed` if this kind has a `packing`, and has had the same value since.
        reread: reads the weights once more, for an engine that does not keep them; None: it keeps them in memory.

        Raises InputTypeError, InputValueError: `threads` or `dtype` is not possible for this kind.
        """
        self.check_threads(threads)
        self.check_dtype(dtype)
        return self.factory(config, weights, threads, dtype, reread)

    def check_threads(self, threads: int | None) -> None:
        """Raise InputValueError if a number of threads is given and the engine does not use it."""
        if threads is not None and not self.own_threads:
            raise InputValueError(
                f"threads: expected None for backend {self.backend!r}, found {threads}: set OPENBLAS_NUM_THREADS or "
                "OMP_NUM_THREADS, which its BLAS reads"
            )

    def check_dtype(self, dtype: str) -> None:
        """Raise InputValueError unless the engine computes in this dtype."""
        if dtype in self.dtypes:
            return
        if other := next((kind.backend for kind in KINDS if dtype in kind.dtypes), None):
            raise InputValueError(
                f"dtype: backend {self.backend!r} computes in {' or '.join(self.dtypes)} only, found {dtype!r}: use "
                f"backend {other!r}"
            )
        raise InputValueError(f"dtype: expected one of {', '.join(map(repr, DTYPES))}, found {dtype!r}")


def _float32(
    config: ModelConfig, weights: NamedWeights | Packed, threads: int | None, dtype: str, reread: Reread | None
) -> Engine:
    with no_fork:
        from minilm_np.engine.dense import with_dense
        from minilm_np.engine.float32.engine import Float32Engine

    return with_dense(lambda config, weights, _: Float32Engine(config, weights, threads), config, weights, reread)


def _integer(
    config: ModelConfig, weights: NamedWeights | Packed, threads: int | None, dtype: str, reread: Reread | None,
    compute_type: str,
) -> Engine:  # fmt: skip
    with no_fork:
        from minilm_np.engine.dense import with_dense
        from minilm_np.engine.integer.engine import IntegerEngine

    def make(config: ModelConfig, weights: NamedWeights | Packed, reread: Reread | None) -> Engine:
        return IntegerEngine(config, weights, threads, compute_type=compute_type, reread=reread)

    return with_dense(make, config, weights, reread)


def _numpy(
    config: ModelConfig, weights: NamedWeights | Packed, threads: int | None, dtype: str, reread: Reread | None
) -> Engine:
    with no_fork:
        import numpy as np

        from minilm_np.engine.numpy import NumpyEngine

    assert not isinstance(weights, Packed), "this kind has no packing"
    return NumpyEngine(config, weights, np.float64 if dtype == "float64" else np.float32)


def _integer_instructions() -> str:
    with no_fork:
        from minilm_np.engine.runtime.integer_target import integer_target, target_reason

    return f"{integer_target()} ({target_reason()})"


def _origin(package: str) -> str:
    with no_fork:
        from minilm_np.engine.runtime.entries import origin

    return origin(package)


def _float32_packing() -> str:
    with no_fork:
        from minilm_np.engine.runtime.sources import digest

    return digest("minilm_np.engine.float32.packing")  # the same layout for every processor


def _integer_packing() -> str:
    with no_fork:
        from minilm_np.engine.runtime.entries import identity
        from minilm_np.engine.runtime.sources import digest

    # a kernel quantises the weights; the identity includes the target, which decides the layout
    return f"{identity(_INTEGER_KERNELS)} {digest('minilm_np.engine.integer.packing')}"


_FLOAT32_KERNELS, _INTEGER_KERNELS = "minilm_np.engine.float32.kernels", "minilm_np.engine.integer.kernels"
_NUMBA = ("numpy", "tokenizers", "numba")


def _integer_kind(compute_type: str) -> EngineKind:
    return EngineKind(
        backend="numba",
        compute_type=compute_type,
        contract=f"{compute_type}-1",
        dtypes=("float32",),
        own_threads=True,
        packages=_NUMBA,
        factory=partial(_integer, compute_type=compute_type),
        instructions=_integer_instructions,
        kernels=partial(_origin, _INTEGER_KERNELS),
        packing=_integer_packing,
    )


KINDS = (
    EngineKind(
        backend="numba",
        compute_type="float32",
        contract=1,
        dtypes=("float32",),
        own_threads=True,
        packages=_NUMBA,
        factory=_float32,
        kernels=partial(_origin, _FLOAT32_KERNELS),
        packing=_float32_packing,
    ),
    _integer_kind("int16"),
    _integer_kind("int8"),
    EngineKind(
        backend="numpy",
        compute_type="float32",
        contract=None,
        dtypes=("float32", "float64"),
        own_threads=False,
        packages=("numpy", "tokenizers"),
        factory=_numpy,
    ),
)
BACKENDS = tuple(dict.fromkeys(kind.backend for kind in KINDS))  # the first is the default
COMPUTE_TYPES = tuple(dict.fromkeys(kind.compute_type for kind in KINDS))
DTYPES = tuple(dict.fromkeys(dtype for kind in KINDS for dtype in kind.dtypes))


def find(backend: str, compute_type: str = "float32") -> EngineKind:
    """Return the kind of engine of this backend and compute type. Raises InputValueError: there is none."""
    for kind in KINDS:
        if (kind.backend, kind.compute_type) == (backend, compute_type):
            return kind
    check_choice("backend", backend, BACKENDS)
    check_choice("compute_type", compute_type, COMPUTE_TYPES)
    possible = [kind.compute_type for kind in KINDS if kind.backend == backend]
    raise InputValueError(
        f"compute_type: backend {backend!r} has {', '.join(map(repr, possible))}, found {compute_type!r}"
    )
