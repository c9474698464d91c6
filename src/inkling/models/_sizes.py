"""How a named size is written, and the sizes that llama and qwen3 share.

A name is the number of parameters at the size's own vocabulary, to about a tenth. Another vocabulary changes the count;
`inkling models --vocab-size` tells it. Widths are multiples of 64, which kernels like; heads have 32, 64 or 128
dimensions, which every runtime has. The head is tied where the vocabulary would otherwise be too large a share.
"""

from __future__ import annotations

from typing import Any


def size(
    *, layers: int, width: int, feed_forward: int, heads: int, vocabulary: int, context: int, **more: Any
) -> dict[str, Any]:
    """The keys of one size, those of an architecture's `Config`; `more` adds others."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": context,
        **more,
    }


_GROUPED = {"num_key_value_heads": 8}

DECODER_SIZES: dict[str, dict[str, Any]] = {
    "0.8m": size(layers=4, width=128, feed_forward=320, heads=4, vocabulary=259, context=256, tie_word_embeddings=True),
    "3m": size(layers=4, width=256, feed_forward=640, heads=4, vocabulary=1024, context=256, tie_word_embeddings=True),
    "10m": size(layers=6, width=320, feed_forward=896, heads=5, vocabulary=4096, context=512),
    "27m": size(layers=6, width=512, feed_forward=1344, heads=8, vocabulary=8192, context=512),
    "50m": size(layers=8, width=640, feed_forward=1728, heads=10, vocabulary=8192, context=1024),
    "124m": size(layers=14, width=768, feed_forward=2048, heads=12, vocabulary=16_384, context=1024),
    "350m": size(layers=24, width=1024, feed_forward=2816, heads=16, vocabulary=32_768, context=2048, **_GROUPED),
    "1b": size(layers=18, width=2048, feed_forward=5632, heads=16, vocabulary=32_768, context=2048, **_GROUPED),
}


def with_windows(sizes: dict[str, dict[str, Any]], **more: Any) -> dict[str, dict[str, Any]]:
    """The same sizes for an architecture with windows: of a quarter of the context."""
    return {
        name: {**values, "sliding_window": values["max_position_embeddings"] // 4, **more}
        for name, values in sizes.items()
    }


def mixture_sizes(width_key: str, **more: Any) -> dict[str, dict[str, Any]]:
    """Sizes of mixtures of eight experts, two for each token. The names count all parameters, at work or idle.

    Args:
        width_key: The key of an expert's width.
        more: Keys of all sizes.
    """
    sizes = {}
    for name, values in _MIXTURES.items():
        width = values["intermediate_size"]
        dense = {"intermediate_size": 2 * width} if width_key != "intermediate_size" else {}
        sizes[name] = {**values, **dense, width_key: width, **more}
    return sizes


_TIED: dict[str, Any] = {"tie_word_embeddings": True}
_MIXTURES: dict[str, dict[str, Any]] = {
    "0.8m": size(layers=4, width=128, feed_forward=40, heads=4, vocabulary=259, context=256, **_TIED),
    "3m": size(layers=4, width=192, feed_forward=128, heads=6, vocabulary=1024, context=256, **_TIED),
    "10m": size(layers=6, width=256, feed_forward=192, heads=4, vocabulary=4096, context=512, **_TIED),
    "27m": size(layers=6, width=384, feed_forward=320, heads=6, vocabulary=8192, context=512),
    "50m": size(layers=8, width=448, feed_forward=448, heads=7, vocabulary=8192, context=1024),
    "124m": size(layers=10, width=640, feed_forward=576, heads=10, vocabulary=16_384, context=1024),
    "350m": size(layers=12, width=1024, feed_forward=832, heads=16, vocabulary=32_768, context=2048, **_GROUPED),
    "1b": size(
        layers=20, width=1280, feed_forward=1408, heads=10, vocabulary=32_768, context=2048, num_key_value_heads=5
    ),
}
