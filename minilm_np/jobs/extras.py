"""The library of the extra `parquet`, imported when it is needed."""

from types import ModuleType

from minilm_np._forks import no_fork
from minilm_np.errors import MissingExtraError


def pyarrow(purpose: str) -> ModuleType:
    """Return the module pyarrow, with pyarrow.parquet. purpose: what needs it, for the error.

    Raises MissingExtraError.
    """
    try:
        with no_fork:
            import pyarrow
            import pyarrow.parquet
    except ImportError:
        raise MissingExtraError(f"{purpose} needs pyarrow, which is not installed: pip install pyarrow") from None
    module: ModuleType = pyarrow
    return module
