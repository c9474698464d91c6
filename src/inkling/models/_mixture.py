"""Decoders whose feed-forward layers are mixtures of experts: what mixtral and qwen3_moe share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from inkling.models._config import MAX_LAYERS
from inkling.models._decoder import Decoder, DecoderConfig
from inkling.models._experts import Mixture, load_balancing_loss, router_z_loss


class MixtureConfig(DecoderConfig):
    """Shape of such a decoder, and what keeps its routers even."""

    num_experts: int = Field(8, ge=2, le=MAX_LAYERS)
    """Experts of a layer."""
    num_experts_per_tok: int = Field(2, ge=1)
    """Those that a token goes through."""
    router_aux_loss_coef: float = Field(0.001, ge=0)
    """Weight of the load-balancing loss in training."""
    router_z_loss_coef: float = Field(0.0, ge=0)
    """Weight of the loss that keeps the routers' logits small."""
    router_bias_rate: float = Field(0.0, ge=0)
    """How far a router's biases move in a step to keep experts even; 0: it has none."""

    @property
    def beyond_transformers(self) -> list[str]:
        """Biases of routers."""
        kind = self.model_type
        return [f"routers of {kind} have no biases there (router_bias_rate)"] if self.router_bias_rate else []

    def is_mixture(self, layer: int) -> bool:
        """Whether a layer has experts."""
        return True

    @property
    def least_tensors(self) -> int:
        """Each expert has some of its own."""
        return sum(self.num_experts if self.is_mixture(layer) else 1 for layer in range(self.num_hidden_layers))

    @model_validator(mode="after")
    def _chooses_among_its_experts(self) -> Self:
        if self.num_experts_per_tok > self.num_experts:
            raise ValueError(f"num_experts_per_tok {self.num_experts_per_tok} of {self.num_experts} experts")
        return self


class MixtureDecoder(Decoder):
    """A decoder with mixtures of experts. All else is that of `Decoder`."""

    config: MixtureConfig

    @property
    def mixtures(self) -> list[Mixture]:
        """Its mixtures, from the first layer on."""
        return [module for module in self.modules() if isinstance(module, Mixture)]

    def auxiliary_loss(self) -> Tensor | None:
        """The losses that keep tokens spread and logits small, averaged over layers, by their weights in the config."""
        routings = [mixture.last for mixture in self.mixtures if mixture.last is not None]
        if not routings:
            return None
        total = torch.zeros((), device=routings[0].logits.device)
        if self.config.router_aux_loss_coef:
            balance = torch.stack([load_balancing_loss(routing) for routing in routings]).mean()
            total = total + self.config.router_aux_loss_coef * balance
        if self.config.router_z_loss_coef:
            small = torch.stack([router_z_loss(routing) for routing in routings]).mean()
            total = total + self.config.router_z_loss_coef * small
        return total

    def after_step(self, sum_: Callable[[Sequence[Tensor]], None]) -> None:
        """Move the routers' biases by the loads of the step, where routers learn and have biases."""
        routers = [mixture.gate for mixture in self.mixtures if mixture.gate.weight.requires_grad]
        loads = {router: router.load for router in routers if router.load is not None}
        sum_(list(loads.values()))
        for router in loads:
            router.balance(self.config.router_bias_rate)

    @torch.no_grad()
    def measurements(self) -> dict[str, float]:
        """How evenly the experts were used in the last forward pass in training: 1 is even, of all layers the worst."""
        routings = [mixture.last for mixture in self.mixtures if mixture.last is not None]
        if not routings:
            return {}
        loads = torch.stack([routing.counts() / routing.chosen.numel() for routing in routings])  # (layers, E)
        loads = loads * loads.shape[1]
        return {"expert_load_max": loads.max().item(), "expert_load_min": loads.min().item()}

    def idle_parameters(self) -> int:
        """Numbers of the experts that a token does not go through."""
        unused = 0
        for mixture in self.mixtures:
            numbers = sum(parameter.numel() for parameter in mixture.experts[0].parameters())
            unused += numbers * (len(mixture.experts) - mixture.gate.top_k)
        return unused
