"""What all architectures share: the path from token ids to logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from inkling.models._cache import KVCache
from inkling.models._config import ModelConfig


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
    def head(self) -> nn.Module:
        """What projects to the vocabulary: the embedding when tied."""

    @property
    def head_weight(self) -> Tensor:
        """The output projection, (V, C), of a model whose weights are not packed."""
        weight = self.head.weight
        assert isinstance(weight, Tensor)
        return weight

    @property
    def dtype(self) -> torch.dtype:
        """Of the residual stream."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.parameters()).device

    @abstractmethod
    def init_weights(self, generator: Generator | None = None) -> None:
        """Draw all weights anew, the same ones for the same generator state, on the CPU."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits, (…, C) -> (…, V)."""
        head: Any = self.head
        if isinstance(head, nn.Linear | nn.Embedding):
            projected = F.linear(hidden, head.weight)
        else:
            projected = head.logits(hidden)  # packed matrices multiply in their own way
        cap = self.config.logit_softcap
        return projected if cap is None else cap * (projected / cap).tanh()

    def auxiliary_loss(self) -> Tensor | None:
        """What training adds to the mean loss of the last forward pass, a scalar, for the sake of something else."""
        return None

    def after_step(self, sum_: Callable[[Sequence[Tensor]], None]) -> None:
        """Change what no gradient changes, once per step of training.

        Args:
            sum_: Replaces tensors by their sums over all processes that train together.
        """

    def measurements(self) -> dict[str, float]:
        """What is worth logging of the last forward pass in training."""
        return {}

    def idle_parameters(self) -> int:
        """Numbers in matrices that a token does not meet on its way."""
        return 0

    def forward(self, input_ids: Tensor, *, segment_ids: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Next-token logits, (B, T) -> (B, T, V). Arguments as in `hidden`."""
        return self.logits(self.hidden(input_ids, segment_ids=segment_ids, cache=cache))


class SeeingModel(LanguageModel):
    """A model that takes pictures too: as image tokens in a text, and what `see` makes of the pixels."""

    @property
    @abstractmethod
    def image_token(self) -> int:
        """What stands for a patch of a picture."""

    @property
    @abstractmethod
    def picture_size(self) -> int:
        """Pixels of a side."""

    @property
    @abstractmethod
    def tokens_of_a_picture(self) -> int:
        """Image tokens that a picture takes."""

    @abstractmethod
    def see(self, pixels: Tensor) -> Tensor:
        """(P, 3, S, S), from -1 to 1 -> (tokens, C): what takes the places of image tokens."""

    @abstractmethod
    def hidden(
        self,
        input_ids: Tensor,
        *,
        segment_ids: Tensor | None = None,
        cache: KVCache | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """As `LanguageModel.hidden`, with what was seen, in the order of the image tokens, row by row."""
