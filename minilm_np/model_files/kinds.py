"""Which public class loads a model, told from its folder or its name before it is loaded."""

import os
from pathlib import Path

from minilm_np.errors import ConfigError
from minilm_np.model_files.encoder_config import CROSS_ENCODER
from minilm_np.model_files.json_files import read_object

ORGANISATION = "cross-encoder"  # of cross-encoders on the Hub; that of names without one, as in sentence-transformers


def is_cross_encoder(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether a folder's config.json names the class of cross-encoders; of a name on the Hub, its organisation decides.

    False also if the file is missing or broken: the error of loading the model says why.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        return os.fspath(name_or_path).startswith(f"{ORGANISATION}/")
    try:
        return read_object(folder / "config.json").get("architectures") == [CROSS_ENCODER]
    except ConfigError:
        return False
