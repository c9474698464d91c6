"""LLaVA (Liu et al. 2023, arXiv 2304.08485): a vision transformer, a projector, and any decoder of ours that answers.

A picture stands in a text as so many image tokens as it has patches; their embeddings are the projected patches.

Shapes: B batch, T time, C hidden, P pictures, S pixels of a side, N patches of a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Generator, Tensor, nn

from inkling.errors import ModelError
from inkling.models._cache import KVCache
from inkling.models._config import ModelConfig
from inkling.models._decoder import Decoder
from inkling.models._model import LanguageModel, SeeingModel
from inkling.models._vision import Projector, Tower, VisionConfig, init_vision

DEFAULT_TEXT = "qwen3"
SIZES: dict[str, dict[str, Any]] = {}
"""None: a model that sees is made from a trained one, `with_eyes`."""


class Config(ModelConfig):
    """Shape of the whole; keys as in `transformers.LlavaConfig`, whose models cap no logits, whatever their decoder.

    The fields of `ModelConfig` are those of the decoder. Without a `text_config` they are also where its shape is read
    from, for a qwen3.
    """

    model_type: ClassVar[str] = "llava"
    architecture: ClassVar[str] = "LlavaForConditionalGeneration"
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "vision_feature_layer": (-1,),
        "vision_feature_select_strategy": ("full",),
        "projector_hidden_act": ("gelu",),
        "multimodal_projector_bias": (True,),
    }
    fixed: ClassVar[Mapping[str, Any]] = {
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
    }

    text_config: dict[str, Any]
    vision_config: VisionConfig
    image_token_index: int = Field(ge=0)
    """The token that stands for a patch."""

    @classmethod
    def _fill_in(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The decoder's shape as its own `config.json`, and a small encoder where none is described."""
        from inkling import models

        given = values.get("text_config")
        if not isinstance(given, Mapping):
            own = ("text_config", "vision_config", "image_token_index", "model_type", "architectures")
            given = {"model_type": DEFAULT_TEXT, **{k: v for k, v in values.items() if k not in own}}
        text = models.read_config(given)
        if text.model_type == "llava":
            raise ModelError("the decoder of a llava model is a model of text")
        vision = values.get("vision_config", _small_vision(text.hidden_size))
        return {
            **{name: getattr(text, name) for name in ModelConfig.model_fields},
            "text_config": text.to_dict(),
            "vision_config": vision,
            "image_token_index": values.get("image_token_index", values.get("image_token_id", text.vocab_size - 1)),
        }

    @model_validator(mode="after")
    def _has_such_a_token(self) -> Self:
        if self.image_token_index >= self.vocab_size:
            raise ValueError(f"image_token_index {self.image_token_index} is beyond the {self.vocab_size} tokens")
        return self

    def to_dict(self) -> dict[str, Any]:
        """The `config.json` of this model."""
        text = {key: value for key, value in self.text_config.items() if key != "architectures"}
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "text_config": text,
            "vision_config": self.vision_config.model_dump(),
            "image_token_index": self.image_token_index,
            "image_seq_length": self.vision_config.num_patches,
            "tie_word_embeddings": text.get("tie_word_embeddings", False),
            **self.fixed,
            "torch_dtype": "float32",
        }

    @cached_property
    def text(self) -> ModelConfig:
        """The decoder's configuration."""
        from inkling import models

        return models.read_config(self.text_config)

    def window(self, layer: int) -> int | None:
        """That of the decoder."""
        return self.text.window(layer)

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """That of the decoder."""
        return self.text.cache_shape

    @property
    def attention_widths(self) -> tuple[int, int]:
        """Those of the decoder."""
        return self.text.attention_widths

    @property
    def keeps_scores(self) -> bool:
        """As the decoder does."""
        return self.text.keeps_scores


def _small_vision(hidden_size: int) -> dict[str, Any]:
    width = max(32, hidden_size // 2 // 32 * 32)
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 4,
        "num_attention_heads": width // 32,
        "image_size": 32,
        "patch_size": 8,
    }


def with_eyes(
    model: LanguageModel, vision: Mapping[str, Any], image_token: int, generator: Generator | None = None
) -> Model:
    """A trained decoder with an encoder and a projector that have yet to learn. See `models.with_eyes`."""
    values = {"text_config": model.config.to_dict(), "vision_config": dict(vision), "image_token_index": image_token}
    try:
        VisionConfig.model_validate(dict(vision))
    except ValidationError as error:
        raise ModelError(f"impossible encoder: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    seeing = Model(Config.from_dict(values))
    init_vision(seeing.vision_tower, seeing.multi_modal_projector, generator)
    seeing.language_model.load_state_dict(model.state_dict())
    return seeing.eval()


class Model(SeeingModel):
    """Same computation, names and layouts as `transformers.LlavaForConditionalGeneration` with a SigLIP encoder."""

    config: Config

    def __init__(self, config: Config, *, dropout: float = 0.0) -> None:
        from inkling import models

        super().__init__()
        self.config = config
        decoder = models.load(config.text.model_type).Model(config.text, dropout=dropout)
        if not isinstance(decoder, Decoder):
            raise ModelError(f"llava has no {config.text.model_type} decoder: take one with rotary positions")
        self.vision_tower = Tower(config.vision_config)
        self.multi_modal_projector = Projector(config.vision_config.hidden_size, config.hidden_size)
        self.language_model = decoder

    @property
    def head(self) -> nn.Module:
        """The decoder's."""
        return self.language_model.head

    @property
    def dtype(self) -> torch.dtype:
        """Of the residual stream."""
        return self.language_model.dtype

    @property
    def image_token(self) -> int:
        """What stands for a patch."""
        return self.config.image_token_index

    @property
    def picture_size(self) -> int:
        """Pixels of a side."""
        return self.config.vision_config.image_size

    @property
    def tokens_of_a_picture(self) -> int:
        """Its patches."""
        return self.config.vision_config.num_patches

    def see(self, pixels: Tensor) -> Tensor:
        """(P, 3, S, S), from -1 to 1 -> (P · N, C): what takes the places of image tokens."""
        patches: Tensor = self.multi_modal_projector(self.vision_tower.vision_model(pixels))
        return patches.flatten(0, 1)

    def hidden(
        self,
        input_ids: Tensor,
        *,
        segment_ids: Tensor | None = None,
        cache: KVCache | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """Hidden states after the last norm, (B, T) -> (B, T, C). See `LanguageModel.hidden`.

        Args:
            seen: What `see` gave of the pictures, in the order of the image tokens, row by row.
        """
        x = self.language_model.embed(input_ids)
        if seen is not None:
            places = (input_ids == self.image_token)[..., None].expand_as(x)
            x = x.masked_scatter(places, seen.to(x.dtype))
        return self.language_model.read(x, input_ids, segment_ids=segment_ids, cache=cache)

    def auxiliary_loss(self) -> Tensor | None:
        """The decoder's."""
        return self.language_model.auxiliary_loss()

    def measurements(self) -> dict[str, float]:
        """The decoder's."""
        return self.language_model.measurements()

    def idle_parameters(self) -> int:
        """The decoder's."""
        return self.language_model.idle_parameters()

    def after_step(self, sum_: Callable[[Sequence[Tensor]], None]) -> None:
        """As the decoder does."""
        self.language_model.after_step(sum_)

    @torch.no_grad()
    def init_weights(self, generator: Generator | None = None) -> None:
        """Draw all weights anew: the decoder's as its own, then the encoder's and the projector's."""
        self.language_model.init_weights(generator)
        init_vision(self.vision_tower, self.multi_modal_projector, generator)
