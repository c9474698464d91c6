"""The shape of a model, spelled as in `config.json`, and a strict reading of foreign ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inkling.errors import ModelError

MAX_LAYERS, MAX_WIDTH, MAX_HEADS, MAX_CONTEXT = 4096, 1 << 24, 1 << 16, 1 << 31
"""Far beyond any model: a file from anywhere must not make us build one without end before its weights are seen."""


class ModelConfig(BaseModel):
    """The part of a Hugging Face `config.json` that shapes the computation.

    A subclass declares the further keys it computes with as fields, under their names in `config.json`, and lists in
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
    spellings: ClassVar[Mapping[str, str]] = {}
    """Name of a field here → its name in this architecture's `config.json`, where they differ."""

    vocab_size: int = Field(ge=1, le=MAX_WIDTH)
    hidden_size: int = Field(ge=1, le=MAX_WIDTH)
    intermediate_size: int = Field(ge=1, le=MAX_WIDTH)
    num_hidden_layers: int = Field(ge=1, le=MAX_LAYERS)
    num_attention_heads: int = Field(ge=1, le=MAX_HEADS)
    num_key_value_heads: int = Field(ge=1, le=MAX_HEADS)
    head_dim: int = Field(ge=1, le=MAX_HEADS)
    max_position_embeddings: int = Field(ge=1, le=MAX_CONTEXT)

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
        named = {name: values[key] for name, key in cls.spellings.items() if key in values}
        try:
            return cls.model_validate(cls._fill_in({**named, **values}))
        except ValidationError as error:
            problems = [_describe(detail) for detail in error.errors()]
            raise ModelError(f"impossible {cls.model_type} model: {'; '.join(problems)}") from None

    @classmethod
    def _fill_in(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Without other word each query head has its own keys and values, and the heads share the width."""
        heads, width = values.get("num_attention_heads"), values.get("hidden_size")
        derived: dict[str, Any] = {"num_key_value_heads": heads}
        if isinstance(heads, int) and isinstance(width, int) and heads > 0:
            derived["head_dim"] = width // heads
        return {**derived, **{key: value for key, value in values.items() if value is not None}}

    def window(self, layer: int) -> int | None:
        """How many tokens a token of this layer sees, itself included; None: all before it."""
        return None

    @property
    def least_tensors(self) -> int:
        """A model of this shape has so many tensors at least."""
        return self.num_hidden_layers

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """What a layer keeps of a token: heads, numbers of a key, numbers of a value."""
        return self.num_key_value_heads, self.head_dim, self.head_dim

    @property
    def attention_widths(self) -> tuple[int, int]:
        """Numbers of a head that a query and a key meet in, and those of a value."""
        return self.head_dim, self.head_dim

    @property
    def keeps_scores(self) -> bool:
        """Whether the backward pass needs all scores of attention again, which fused kernels do without."""
        return False

    @property
    def beyond_transformers(self) -> list[str]:
        """What of this model the `transformers` class of its name does not compute."""
        return []

    @property
    def logit_softcap(self) -> float | None:
        """Logits stay below this: cap · tanh(logit / cap). None: they are what the head gives."""
        return None

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """The `config.json` of this model, in the spelling that `transformers` 4 and 5 both read."""
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            **{self.spellings.get(name, name): value for name, value in self.model_dump().items()},
            **self.fixed,
            "torch_dtype": "float32",
        }


def _describe(detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    message = detail["msg"].removeprefix("Value error, ")
    return f"{key} is missing" if detail["type"] == "missing" else f"{key}: {message}" if key else message
