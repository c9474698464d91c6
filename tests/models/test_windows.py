"""Windows: who sees whom, and caches that do not grow."""

from __future__ import annotations

import pytest
import torch

from inkling import models
from inkling.models import Int8KVCache, KVCache, Scoring, attend


def test_a_token_sees_its_window_and_no_more() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 12, 8) for _ in range(3))
    place = torch.arange(12)
    distance = place[:, None] - place
    wanted = attend(q, k, v, (distance >= 0) & (distance < 5))
    torch.testing.assert_close(attend(q, k, v, None, Scoring(window=5)), wanted)
    changed = k.clone()
    changed[:, :, 3] += 100
    same = attend(q, changed, v, None, Scoring(window=5))
    assert torch.equal(same[:, 8:], attend(q, k, v, None, Scoring(window=5))[:, 8:])


def test_slopes_are_those_of_alibi() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 6, 8) for _ in range(3))
    scores = (q @ k.transpose(-1, -2)) * 8**-0.5
    for head, slope in enumerate((0.5, 0.25)):
        for query in range(6):
            for key in range(6):
                scores[0, head, query, key] += -slope * (query - key) if key <= query else float("-inf")
    wanted = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attend(q, k, v, None, Scoring(slopes=(0.5, 0.25))), wanted)
    torch.testing.assert_close(attend(q[:, :, 4:], k, v, None, Scoring(slopes=(0.5, 0.25)))[:, -1:], wanted[:, -1:])


def test_compiled_for_any_shape() -> None:
    compiled = torch.compile(attend, fullgraph=True, backend="eager", dynamic=True)
    for length, heads in ((5, 2), (9, 4), (1, 2)):
        q, k, v = torch.randn(3, 1, heads, length, 8, generator=torch.Generator().manual_seed(length))
        assert torch.equal(compiled(q, k, v, None), attend(q, k, v, None))


@pytest.mark.parametrize("kind", [KVCache, Int8KVCache])
def test_the_cache_of_a_window_stays_its_size(kind: type[KVCache]) -> None:
    shape = {**models.load("gemma2").SIZES["0.8m"], "sliding_window": 16}
    config = models.load("gemma2").Config.from_dict(shape)
    cache = kind(config, 1, 200)
    assert [keys.shape[2] for keys in cache.keys] == [15, 200, 15, 200]
    mistral = models.load("mistral").Config.from_dict({**models.load("mistral").SIZES["0.8m"], "sliding_window": 16})
    assert all(values.shape[2] == 15 for values in kind(mistral, 1, 200).values)
