"""The attributes that `SentenceEncoder` and `CrossEncoder` share."""

from dataclasses import replace
from typing import Any

from minilm_np.encoding import sentence_transformers
from minilm_np.encoding.loaded_model import LoadedModel
from minilm_np.errors import InputValueError
from minilm_np.model_files.config import ModelConfig
from minilm_np.model_files.hub import ModelFolder
from minilm_np.model_files.settings import overridden


class PublicModel:
    """Facts and settings of a loaded model, for a public class that holds one.

    A subclass defines `_loaded`, and `_set`, which changes fields of the model's settings.
    """

    @property
    def _loaded(self) -> LoadedModel:
        raise NotImplementedError

    def _set(self, **settings: Any) -> None:
        raise NotImplementedError

    @property
    def config(self) -> ModelConfig:
        """The model's sizes, pooling and limits."""
        return self._loaded.config

    @property
    def folder(self) -> ModelFolder | None:
        """The folder that the model was loaded from; None for random weights."""
        return self._loaded.origin

    @property
    def model_path(self) -> str | None:
        """The path of `folder`; None for random weights."""
        return str(self.folder.path) if self.folder else None

    @property
    def backend(self) -> str:
        """The name of the backend: "numba" or "numpy"."""
        return self._loaded.kind.backend

    @property
    def compute_type(self) -> str:
        """The compute type of the dense layers: "float32", "int16" or "int8"."""
        return self._loaded.kind.compute_type

    @property
    def contract(self) -> int | str | None:
        """The version of the numerical contract that fixes the results' bits; None if the backend has none."""
        return self._loaded.kind.contract

    @property
    def device(self) -> sentence_transformers.Device:
        """The device that the model runs on: "cpu", a str that is also equal to `torch.device("cpu")`."""
        return sentence_transformers.CPU

    @property
    def model_card_data(self) -> sentence_transformers.ModelCardData:
        """The object to which sentence-transformers' evaluators give their metrics; it discards them."""
        return sentence_transformers.ModelCardData()

    @property
    def threads(self) -> int | None:
        """The number of threads per call; None for the NumPy backend, whose BLAS decides."""
        return self._loaded.engine.threads

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts by name; can be set and changed."""
        return self._loaded.settings.prompts

    @prompts.setter
    def prompts(self, prompts: dict[str, str]) -> None:
        known = overridden(replace(self._loaded.settings, prompts={}), prompts, None, None, None).prompts
        if self.default_prompt_name is not None and self.default_prompt_name not in known:
            raise InputValueError(
                f"prompts: expected one named {self.default_prompt_name!r}, because it is the default_prompt_name: set "
                "that to None first"
            )
        self._set(prompts=known)

    @property
    def default_prompt_name(self) -> str | None:
        """The name of the prompt for calls that do not specify one; can be set."""
        return self._loaded.settings.default_prompt_name

    @default_prompt_name.setter
    def default_prompt_name(self, name: str | None) -> None:
        if name is not None:
            overridden(self._loaded.settings, None, name, None, None)  # checks it
        self._set(default_prompt_name=name)

    def __repr__(self) -> str:
        return self._loaded.shown_as(type(self).__name__)
