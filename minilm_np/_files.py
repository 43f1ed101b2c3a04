"""Files and folders of the package: where it is, and where it keeps its cache."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def package_cache() -> Path:
    """This package's own cache folder: MINILM_NP_CACHE, or minilm-np in XDG_CACHE_HOME or ~/.cache."""
    if folder := os.environ.get("MINILM_NP_CACHE"):
        return Path(os.path.expanduser(folder))
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "minilm-np"
