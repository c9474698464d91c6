"""Keys and values of the tokens already seen, so that each new token costs one position instead of all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inkling.models._config import ModelConfig
from inkling.models._scaled_dot import PLAIN, Scoring, attend


class KVCache:
    """Preallocated keys and values of a batch, (B, K, S, D) each in every layer, filled from slot 0 on.

    A layer that sees a window keeps no more than that. All rows advance together. Prompts of different lengths are
    aligned at their ends: a row may begin with `padding[row]` slots that nothing attends to.

    Args:
        config: The model's configuration.
        batch_size: Rows, B.
        max_length: Slots, S: padding, prompt and completion together.
        padding: Unused slots at the start of each row, or None when there are none.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        max_length: int,
        *,
        padding: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        assert padding is None or len(padding) == batch_size
        heads, key_dim, value_dim = config.cache_shape
        self._windows = [config.window(layer) for layer in range(config.num_hidden_layers)]
        slots = [max_length if window is None else min(max_length, window - 1) for window in self._windows]

        def zeros(width: int) -> list[Tensor]:
            return [torch.zeros(batch_size, heads, some, width, dtype=dtype, device=device) for some in slots]

        self.keys, self.values = zeros(key_dim), zeros(value_dim)
        self.device = torch.device(device)
        self.padding = torch.tensor(padding, device=device) if padding is not None and any(padding) else None
        self.max_length = max_length
        self.length = 0
        """Slots filled so far."""
        self._recent: dict[str, Tensor] = {}

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's new keys and values, (B, K, T, D), and return all so far, (B, K, length + T, D).

        Of a layer with a window: those that the new ones can see.
        """
        end = self.length + keys.shape[2]
        assert end <= self.max_length, "the cache is full: the caller sizes it for prompt and completion"
        if self._windows[layer] is None:
            self._store(layer, self.length, keys, values)
            return self._stored(layer, end)
        slots = self.keys[layer].shape[2]
        before = self._stored(layer, min(self.length, slots))
        keys, values = torch.cat((before[0], keys), dim=2), torch.cat((before[1], values), dim=2)
        rest = max(0, keys.shape[2] - slots)
        self._store(layer, 0, keys[:, :, rest:], values[:, :, rest:])
        return keys, values

    def attend(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        scoring: Scoring = PLAIN,
    ) -> Tensor:
        """Store one layer's new keys and values, and attend to all so far: (B, H, T, D) -> (B, T, H·D)."""
        keys, values = self.append(layer, keys, values)
        return attend(queries, keys, values, None if mask is None else mask[..., -keys.shape[2] :], scoring)

    def slots(self, num_tokens: int) -> Tensor:
        """Where the new tokens stand for rotary positions, (T): only distances count, so slots do."""
        return torch.arange(self.length, self.length + num_tokens, device=self.device)

    def earlier(self, name: str, x: Tensor, count: int) -> list[Tensor]:
        """What stood 1 to `count` tokens before each of `x`, (B, T, C) each, zeros where a text had not begun.

        Before `x` stood what was given under this name in the passes before. All that a convolution over time needs.
        """
        before = self._recent.get(name, x.new_zeros(x.shape[0], count, x.shape[2]))
        both = torch.cat((before, x), dim=1)  # (B, count + T, C)
        self._recent[name] = both[:, both.shape[1] - count :]
        return [both[:, count - lag : both.shape[1] - lag] for lag in range(1, count + 1)]

    def is_text(self, num_tokens: int) -> Tensor | None:
        """Which of the new slots are not padding, (B, T); None when all rows are of one length."""
        if self.padding is None:
            return None
        slots = torch.arange(self.length, self.length + num_tokens, device=self.device)
        return slots >= self.padding[:, None]

    def advance(self, num_tokens: int) -> None:
        """Count `num_tokens` slots as filled, once all layers have stored theirs."""
        self.length += num_tokens

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order. Copies what they hold."""
        index = torch.tensor(rows, dtype=torch.long, device=self.device)
        self.keys, self.values = [x[index] for x in self.keys], [x[index] for x in self.values]
        self.padding = None if self.padding is None else self.padding[index]
        self._recent = {name: rows_before[index] for name, rows_before in self._recent.items()}

    def _store(self, layer: int, start: int, keys: Tensor, values: Tensor) -> None:
        end = start + keys.shape[2]
        self.keys[layer][:, :, start:end] = keys
        self.values[layer][:, :, start:end] = values

    def _stored(self, layer: int, end: int) -> tuple[Tensor, Tensor]:
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def positions(self, num_tokens: int) -> Tensor:
        """The place of each new token in its row's text, (T) or with padding (B, T); 0 for the padding itself."""
        slots = torch.arange(self.length, self.length + num_tokens, device=self.device)
        if self.padding is None:
            return slots
        return (slots - self.padding[:, None]).clamp(min=0)

    def mask(self, num_tokens: int) -> Tensor | None:
        """Which slots each new token attends to, (T, S) or with padding (B, 1, T, S).

        None where no mask is needed: for one token, which sees everything, and for a first chunk, which is causal.
        """
        if self.padding is None and (num_tokens == 1 or self.length == 0):
            return None
        end = self.length + num_tokens
        query = torch.arange(self.length, end, device=self.device)[:, None]  # (T, 1)
        key = torch.arange(end, device=self.device)  # (S)
        if self.padding is None:
            return key <= query
        text = (key >= self.padding[:, None])[:, None, None, :]  # (B, 1, 1, S)
        return (key <= query) & (text | (key == query))  # a padding slot sees itself: softmax of nothing is NaN


class Int8KVCache(KVCache):
    """Keys and values in 8 bits, each position and head with a scale of its own: about a quarter of the memory.

    Unpacked when attention needs them, which costs time; the error of a number is at most 1/254 of the largest one
    beside it.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        max_length: int,
        *,
        padding: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(config, batch_size, max_length, padding=padding, dtype=torch.int8, device=device)
        self.key_scales = [torch.zeros(*codes.shape[:-1], 1, dtype=dtype, device=device) for codes in self.keys]
        self.value_scales = [torch.zeros_like(scales) for scales in self.key_scales]

    def _store(self, layer: int, start: int, keys: Tensor, values: Tensor) -> None:
        end = start + keys.shape[2]
        for new, codes, scales in ((keys, self.keys, self.key_scales), (values, self.values, self.value_scales)):
            if not new.shape[-1]:  # values that are part of the keys
                continue
            scale = new.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / 127  # (B, K, T, 1)
            codes[layer][:, :, start:end] = (new / scale).round().to(torch.int8)
            scales[layer][:, :, start:end] = scale

    def _stored(self, layer: int, end: int) -> tuple[Tensor, Tensor]:
        keys = self.keys[layer][:, :, :end] * self.key_scales[layer][:, :, :end]
        values = self.values[layer][:, :, :end] * self.value_scales[layer][:, :, :end]
        return keys, values

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order. Copies what they hold."""
        index = torch.tensor(rows, dtype=torch.long, device=self.device)
        self.key_scales = [x[index] for x in self.key_scales]
        self.value_scales = [x[index] for x in self.value_scales]
        super().keep(rows)


class PlacedTokens(KVCache):
    """The cache of one pass over one row, (1, T), whose tokens stand at given places of texts of their own.

    Who sees whom is up to `attend`, which a subclass writes; nothing is counted.

    Args:
        places: Of each token in its own text, (T).
    """

    def __init__(self, places: Tensor) -> None:
        self._places = places

    def slots(self, num_tokens: int) -> Tensor:
        """The place of each token, (T)."""
        return self._places

    def positions(self, num_tokens: int) -> Tensor:
        """The same."""
        return self._places

    def mask(self, num_tokens: int) -> Tensor | None:
        """None: `attend` has its own."""
        return None

    def is_text(self, num_tokens: int) -> Tensor | None:
        """None: all tokens are."""
        return None

    def advance(self, num_tokens: int) -> None:
        """Nothing to count: who made the places counts."""
