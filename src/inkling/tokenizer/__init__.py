"""Text to token ids and back."""

from inkling.tokenizer.tokenizer import DEFAULT_SPECIALS, EOT, StreamDecoder, Tokenizer

__all__ = ["DEFAULT_SPECIALS", "EOT", "StreamDecoder", "Tokenizer"]
