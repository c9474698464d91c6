"""Named sizes of the llama-like decoders.

A name is the number of parameters at the size's own vocabulary, to about 5 %. Another vocabulary changes the count;
`inkling models --vocab-size` tells it. Widths are multiples of 64, which kernels like; heads have 32, 64 or 128
dimensions, which every runtime has. The head is tied where the vocabulary would otherwise be too large a share.
"""

from __future__ import annotations

from typing import Any


def _size(
    layers: int, width: int, feed_forward: int, heads: int, vocabulary: int, context: int, **more: Any
) -> dict[str, Any]:
    head_dim = width // heads
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": head_dim,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
        **more,
    }


DECODER_SIZES: dict[str, dict[str, Any]] = {
    "0.8m": _size(4, 128, 320, 4, 259, 256, tie_word_embeddings=True),
    "3m": _size(4, 256, 640, 4, 1024, 256, tie_word_embeddings=True),
    "10m": _size(6, 320, 896, 5, 4096, 512),
    "27m": _size(6, 512, 1344, 8, 8192, 512),
    "50m": _size(8, 640, 1728, 10, 8192, 1024),
    "124m": _size(14, 768, 2048, 12, 16_384, 1024),
    "350m": _size(24, 1024, 2816, 16, 32_768, 2048, num_key_value_heads=8),
    "1b": _size(18, 2048, 5632, 16, 32_768, 2048, num_key_value_heads=8),
}
