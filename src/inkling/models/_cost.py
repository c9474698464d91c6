"""What a model costs, told before it exists: nothing here allocates memory for weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkling.models._config import ModelConfig
from inkling.models._model import LanguageModel

_FP32_BYTES = 4
_TRAINING_COPIES = 4  # weights, gradients and the two moments of AdamW; Muon keeps one moment of a matrix
_SAMPLE_TOKENS = 16  # few enough that the (T, T) scores, which only the meta device keeps, do not count


@dataclass(frozen=True)
class Cost:
    """Figures of one model, in fp32.

    Attributes:
        num_parameters: Tied ones counted once.
        table_parameters: Those that grow with the vocabulary or the context: embeddings and an untied head.
        training_flops: Operations per token, forward and backward, with windows of the full context.
        cache_bytes: Keys and values of one full context.
        activation_bytes: What the backward pass needs to find again, per token; up to a fifth too much, since the meta
            device keeps more of the attention than the kernels of real devices.
    """

    num_parameters: int
    table_parameters: int
    training_flops: float
    cache_bytes: int
    activation_bytes: int

    @property
    def block_parameters(self) -> int:
        """Those of the layers between embedding and head."""
        return self.num_parameters - self.table_parameters

    @property
    def running_bytes(self) -> int:
        """Memory to generate one full context."""
        return _FP32_BYTES * self.num_parameters + self.cache_bytes

    def training_bytes(self, tokens: int) -> int:
        """Memory to train with AdamW, `tokens` tokens in one forward and backward pass."""
        return _TRAINING_COPIES * _FP32_BYTES * self.num_parameters + self.activation_bytes * tokens


def cost(model: LanguageModel) -> Cost:
    """Figures of a model, which may be on the meta device."""
    config = model.config
    tables = {
        id(module.weight): module.weight.numel() for module in model.modules() if isinstance(module, nn.Embedding)
    }
    tables[id(model.head_weight)] = model.head_weight.numel()
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    # Two operations for each weight a token meets, and twice as many backward. In attention a token meets half a
    # context on average: in each head a product as wide as a key for each position it sees, and one as wide as a value.
    matrices = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 2)
    products = matrices - sum(tables.values()) + model.head_weight.numel() - model.idle_parameters()
    attention_width = config.num_hidden_layers * config.num_attention_heads * sum(config.attention_widths)
    flops = 6 * products + 3 * attention_width * config.max_position_embeddings
    tokens = config.max_position_embeddings if config.keeps_scores else _SAMPLE_TOKENS
    return Cost(
        num_parameters=num_parameters,
        table_parameters=sum(tables.values()),
        training_flops=flops,
        cache_bytes=_FP32_BYTES * _cached_numbers(config, config.max_position_embeddings),
        activation_bytes=_activation_bytes(model, tokens) + _mask_bytes(config),
    )


def _mask_bytes(config: ModelConfig) -> int:
    """Of the masks of windows, per token: a number for each other token, which kernels keep layer by layer."""
    context = config.max_position_embeddings
    windows = [config.window(layer) or context for layer in range(config.num_hidden_layers)]
    return 0 if config.keeps_scores else _FP32_BYTES * context * sum(window < context for window in windows)


def _cached_numbers(config: ModelConfig, context: int) -> int:
    """Numbers that a cache holds of so many tokens, those of windows alone where there are windows."""
    heads, key_dim, value_dim = config.cache_shape
    windows = [config.window(layer) for layer in range(config.num_hidden_layers)]
    slots = sum(context if window is None else min(context, window - 1) for window in windows)
    return slots * heads * (key_dim + value_dim)


def _activation_bytes(model: LanguageModel, tokens: int) -> int:
    """Bytes per token that autograd keeps for the backward pass, the loss included, from passes of so many tokens.

    What is kept however many tokens there are, such as the experts' matrices side by side, counts as in a short pass.
    """
    kept = _kept_bytes(model, tokens)
    if not model.idle_parameters():
        return kept // tokens
    per_token = (_kept_bytes(model, 2 * tokens) - kept) // tokens
    return per_token + (kept - tokens * per_token) // _SHORT_PASS


_SHORT_PASS = 128


def _kept_bytes(model: LanguageModel, tokens: int) -> int:
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    input_ids = torch.zeros(1, tokens, dtype=torch.long, device=model.device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        F.cross_entropy(model(input_ids).flatten(0, 1), input_ids.flatten())
    return sum(storage.nbytes() for storage in kept.values())
