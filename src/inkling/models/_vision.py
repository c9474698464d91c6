"""What sees: a vision transformer of SigLIP's shape, and what brings its patches into a decoder's stream.

Shapes: P pictures, S pixels of a side, N patches of a picture, V width of the encoder, C hidden size of the decoder.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Generator, Tensor, nn

from inkling.models._config import MAX_LAYERS, MAX_WIDTH
from inkling.models._kernels import kernel_for
from inkling.models._layers import embedding
from inkling.models._scaled_dot import attend_explicitly


class VisionConfig(BaseModel):
    """Shape of the encoder; keys as in `transformers.SiglipVisionConfig`."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    model_type: Literal["siglip_vision_model"] = "siglip_vision_model"
    hidden_size: int = Field(ge=1, le=MAX_WIDTH)
    intermediate_size: int = Field(ge=1, le=MAX_WIDTH)
    num_hidden_layers: int = Field(ge=1, le=MAX_LAYERS)
    num_attention_heads: int = Field(ge=1)
    image_size: int = Field(ge=1, le=4096)
    patch_size: int = Field(ge=1)
    num_channels: Literal[3] = 3
    layer_norm_eps: float = Field(1e-6, gt=0)
    hidden_act: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"
    vision_use_head: Literal[False] = False

    @model_validator(mode="after")
    def _parts_fit(self) -> VisionConfig:
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} must be a multiple of patch_size {self.patch_size}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"width {self.hidden_size} must be a multiple of {self.num_attention_heads} heads")
        return self

    @property
    def num_patches(self) -> int:
        """Of a picture: what it takes of a decoder's context."""
        return (self.image_size // self.patch_size) ** 2


class Embeddings(nn.Module):
    """Patches, each with its place."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.patch_embedding = nn.Conv2d(config.num_channels, width, kernel_size=patch, stride=patch)
        self.position_embedding = embedding(config.num_patches, width)

    def forward(self, pixels: Tensor) -> Tensor:
        """(P, 3, S, S) -> (P, N, V)."""
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)  # (P, V, S/p, S/p) -> (P, N, V)
        embedded: Tensor = patches + self.position_embedding.weight
        return embedded


class SelfAttention(nn.Module):
    """Every patch sees all patches of its picture."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.k_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.q_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(P, N, V) -> (P, N, V)."""
        heads = (self.num_heads, -1)
        q, k, v = (proj(x).unflatten(-1, heads).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj))
        if kernel_for(v, v.shape[2]) == "explicit":
            mixed = attend_explicitly(q, k, v, None, None)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        output: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return output


class MLP(nn.Module):
    """Feed-forward layer with GELU in its tanh approximation."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(P, N, V) -> (P, N, V)."""
        output: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return output


class EncoderLayer(nn.Module):
    """Attention, then the feed-forward layer, each with a norm before it."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """(P, N, V) -> (P, N, V)."""
        x = x + self.self_attn(self.layer_norm1(x))
        output: Tensor = x + self.mlp(self.layer_norm2(x))
        return output


class Encoder(nn.Module):
    """The layers."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))


class VisionTransformer(nn.Module):
    """SigLIP's encoder (Zhai et al. 2023, arXiv 2303.15343), a ViT (Dosovitskiy et al. 2020, arXiv 2010.11929).

    Its last norm is a weight of the format that LLaVA's models, which take what comes before it, do not use.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """Patches as the last layer leaves them, (P, 3, S, S) -> (P, N, V)."""
        x: Tensor = self.embeddings(pixels)
        for layer in self.encoder.layers:
            x = layer(x)
        return x


class Tower(nn.Module):
    """The encoder under the name that checkpoints have for it."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.vision_model = VisionTransformer(config)


class Projector(nn.Module):
    """Two layers from a patch to what a decoder takes for a token (Liu et al. 2023, arXiv 2310.03744)."""

    def __init__(self, vision_width: int, hidden_size: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(vision_width, hidden_size)
        self.linear_2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(…, V) -> (…, C)."""
        output: Tensor = self.linear_2(F.gelu(self.linear_1(x)))
        return output


@torch.no_grad()
def init_vision(tower: nn.Module, projector: nn.Module, generator: Generator | None) -> None:
    """Draw all weights anew: matrices by their inputs, the ends of branches 0, gains 1, biases 0, places 0.02.

    The projector's last matrix is small, so that pictures begin as quiet as words do.
    """
    for module in (tower, projector):
        for name, parameter in module.named_parameters():
            role, kind = name.split(".")[-2:]
            if kind == "bias" or role in ("out_proj", "fc2"):
                parameter.zero_()
            elif parameter.ndim == 1:
                parameter.fill_(1.0)
            elif role in ("position_embedding", "linear_2"):
                parameter.normal_(0.0, 0.02, generator=generator)
            else:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)
