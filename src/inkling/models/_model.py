"""What all architectures share: a strict, frozen configuration and the path from token ids to logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Generator, Tensor, nn

from inkling.errors import ModelError
from inkling.models._cache import KVCache


class ModelConfig(BaseModel, ABC):
    """The part of a Hugging Face `config.json` that shapes the computation.

    A subclass declares the keys it computes with as fields, under their names in `config.json`, and lists in
    `unsupported` the keys whose other values would change the computation. All other keys (token ids, versions,
    dropout rates, …) are bookkeeping and are passed over.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    model_type: ClassVar[str]
    architecture: ClassVar[str]
    """Name of the class in `transformers`."""
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]]
    """Key of `config.json` → the values, all of one meaning, that this code computes."""
    fixed: ClassVar[Mapping[str, Any]]
    """Keys that are written for other readers and are the same for every model."""
    vocab_size: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read a `config.json`.

        Raises ModelError for a missing or impossible value, and for a feature that would change the computation.
        """
        foreign = [
            f"{key}={values[key]!r}"
            for key, allowed in {**cls.unsupported, "quantization_config": (None,)}.items()
            if key in values and values[key] not in allowed
        ]
        if foreign:
            raise ModelError(f"this {cls.model_type} model needs what Inkling does not compute: {', '.join(foreign)}")
        try:
            return cls.model_validate(cls._normalise(dict(values)))
        except ValidationError as error:
            problems = [_describe(detail) for detail in error.errors()]
            raise ModelError(f"impossible {cls.model_type} model: {'; '.join(problems)}") from None

    @classmethod
    def _normalise(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Bring other spellings of `config.json` to the names of the fields."""
        return values

    def to_dict(self) -> dict[str, Any]:
        """The `config.json` of this model, in the spelling that `transformers` 4 and 5 both read."""
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            **self.model_dump(),
            **self.fixed,
            "torch_dtype": "float32",
        }


def _describe(detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    message = detail["msg"].removeprefix("Value error, ")
    return f"{key} is missing" if detail["type"] == "missing" else f"{key}: {message}" if key else message


class LanguageModel(nn.Module, ABC):
    """A causal language model: single-device math, no knowledge of optimizers, files or text.

    Parameters carry the names and layouts of the `transformers` class, so `state_dict()` is a checkpoint of it.
    """

    config: ModelConfig

    @abstractmethod
    def hidden(self, input_ids: Tensor, *, segment_ids: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Hidden states after the last norm, (B, T) -> (B, T, C).

        Args:
            input_ids: Token ids, (B, T).
            segment_ids: The document of each position, (B, T), equal neighbours being one document. Attention
                stays inside a document. None: each row is one document, which is faster. Not together with `cache`.
            cache: Keys and values of the tokens before; `input_ids` continue them, and are added to it.
        """

    @property
    @abstractmethod
    def head_weight(self) -> Tensor:
        """The output projection, (V, C); the embedding matrix when tied."""

    @abstractmethod
    def init_weights(self, generator: Generator | None = None) -> None:
        """Draw all weights anew, the same ones for the same generator state, on the CPU."""

    def forward(self, input_ids: Tensor, *, segment_ids: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Next-token logits, (B, T) -> (B, T, V). Arguments as in `hidden`."""
        return F.linear(self.hidden(input_ids, segment_ids=segment_ids, cache=cache), self.head_weight)
