"""Encoding and decoding with a `tokenizer.json`, through Hugging Face's `tokenizers`."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import regex
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from inkling import files
from inkling.errors import TokenizerError
from inkling.tokenizer.patterns import PATTERNS
from inkling.tokenizer.stand_ins import BYTE_OF_CHARACTER, CHARACTER_OF_BYTE

EOT = "<|endoftext|>"
DEFAULT_SPECIALS = (EOT, "<|im_start|>", "<|im_end|>")
TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"

# A line end between two characters that are no white space: all three patterns always end a token right after it, so a
# text may be cut there without changing a token. Long texts are, since the library is slower than linear on them.
_SAFE_BORDER = regex.compile(r"(?<=\S\n)(?=\S)")
_CHUNK_CHARACTERS = 20_000


class Tokenizer:
    """Text ↔ token ids.

    Text never becomes a control token unless the caller asks for it with `allow_special`.

    Args:
        backend: The `tokenizers` object to take over.
        chat_template: How a conversation becomes one text, in Jinja; None for a tokenizer of plain text.
    """

    def __init__(self, backend: tokenizers.Tokenizer, chat_template: str | None = None) -> None:
        self.chat_template = chat_template
        self._with_specials = backend
        self._plain = tokenizers.Tokenizer.from_str(backend.to_str())
        self._plain.encode_special_tokens = True  # a special token's text is text
        self._content: dict[str, Any] = json.loads(backend.to_str())

    # ------------------------------------------------------------ making, loading, saving

    @classmethod
    def from_merges(
        cls,
        merges: Sequence[tuple[bytes, bytes]],
        *,
        pattern: str,
        special_tokens: Sequence[str] = DEFAULT_SPECIALS,
    ) -> Tokenizer:
        """A byte-level BPE: special tokens, the 256 bytes in the order of their stand-in characters, then merges."""
        alphabet = sorted(CHARACTER_OF_BYTE.values())
        spelled = [(_spell(left), _spell(right)) for left, right in merges]
        tokens = dict.fromkeys([*special_tokens, *alphabet, *(left + right for left, right in spelled)])
        vocabulary = {token: number for number, token in enumerate(tokens)}
        return cls(_byte_level_bpe(vocabulary, spelled, PATTERNS[pattern], special_tokens))

    @classmethod
    def from_vocabulary(
        cls,
        vocabulary: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        *,
        pattern: str,
        added_tokens: Mapping[str, bool],
        chat_template: str | None = None,
    ) -> Tokenizer:
        """A byte-level BPE whose tokens, spelled with the bytes' stand-in characters, have their ids already.

        Args:
            added_tokens: Those that are found in text before it is split → whether they are control tokens.

        Raises:
            TokenizerError: The parts do not make a tokenizer.
        """
        try:
            backend = _byte_level_bpe(
                dict(vocabulary), list(merges), PATTERNS[pattern], [], ignore_merges=pattern == "llama3"
            )
            flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
            added = [
                {"id": vocabulary[token], "content": token, **flags, "special": special}
                for token, special in sorted(added_tokens.items(), key=lambda item: vocabulary[item[0]])
            ]
            # Given as content: the library's own way to add a token numbers it anew.
            content = {**json.loads(backend.to_str()), "added_tokens": added}
            return cls(tokenizers.Tokenizer.from_str(json.dumps(content)), chat_template)
        except Exception as error:  # the library raises bare Exception
            reason = " ".join(str(error).split())[:200]
            raise TokenizerError(f"the vocabulary makes no tokenizer ({reason})") from None

    @classmethod
    def load(cls, source: str | Path) -> Tokenizer:
        """Load a folder with a `tokenizer.json` (a run, a data folder), such a file, GPT-2's two files or tiktoken's.

        `tiktoken:NAME` names an encoding of the `tiktoken` package. Raises TokenizerError for what cannot be used.
        """
        from inkling.tokenizer.foreign import load_gpt2_files, load_tiktoken_encoding, load_tiktoken_ranks

        if isinstance(source, str) and source.startswith("tiktoken:"):
            return cls(load_tiktoken_encoding(source.removeprefix("tiktoken:")))
        path = Path(source)
        if path.is_dir() and not (path / TOKENIZER_FILE).exists():
            return cls(load_gpt2_files(path))
        if path.suffix == ".tiktoken":
            return cls(load_tiktoken_ranks(path))
        file = path / TOKENIZER_FILE if path.is_dir() else path
        try:
            template = _chat_template(path) if path.is_dir() else None
            return cls(tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8")), template)
        except FileNotFoundError:
            raise TokenizerError(f"there is no tokenizer {path}. Train one: inkling tokenizer train") from None
        except Exception as error:  # the library raises bare Exception for a file it cannot read
            reason = " ".join(str(error).split())[:200]
            raise TokenizerError(f"{file} is no tokenizer that can be used ({reason})") from None

    def save(self, folder: Path, *, max_length: int | None = None) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`; `transformers` 4 and 5 open the folder."""
        end = EOT if EOT in self.special_tokens else None
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": end,
            "eos_token": end,
            "pad_token": end,
            "clean_up_tokenization_spaces": False,
            **({"model_max_length": max_length} if max_length else {}),
            **({"chat_template": self.chat_template} if self.chat_template else {}),
        }
        files.write_text(folder / TOKENIZER_FILE, self._with_specials.to_str(pretty=True))
        files.write_json(folder / CONFIG_FILE, config)

    # ------------------------------------------------------------ what it is

    @cached_property
    def vocab_size(self) -> int:
        """Number of ids, from 0 to the highest."""
        return max(self._with_specials.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """Control tokens and their ids."""
        return {token["content"]: token["id"] for token in self._content["added_tokens"] if token["special"]}

    @cached_property
    def added_tokens(self) -> dict[str, int]:
        """All tokens that are found in text before it is split, control tokens among them, and their ids."""
        return {token["content"]: token["id"] for token in self._content["added_tokens"]}

    def with_tokens(self, tokens: Sequence[str], *, special: bool) -> Tokenizer:
        """The same tokenizer with more tokens, which are taken whole wherever they stand; ids follow the last one.

        Raises TokenizerError when one is a token already, or is empty.
        """
        known = self._with_specials.get_vocab(with_added_tokens=True)
        for token in tokens:
            if not token or token in known or tokens.count(token) > 1:
                raise TokenizerError(f"{token!r} is a token already" if token else "a token cannot be empty")
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
        new = [{"id": self.vocab_size + n, "content": token, **flags} for n, token in enumerate(tokens)]
        content = {**self._content, "added_tokens": [*self._content["added_tokens"], *new]}
        return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(content)), self.chat_template)

    @cached_property
    def eot_id(self) -> int:
        """Id of the token that ends a document. Raises TokenizerError when there is none."""
        for name in (EOT, "</s>", "<|end_of_text|>", "<eos>", "[SEP]"):
            if name in self.special_tokens:
                return self.special_tokens[name]
        raise TokenizerError(f"this tokenizer has no end-of-text token such as {EOT}")

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Ids of the tokens that end an answer: of a document, and of a turn."""
        turns = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>")
        return frozenset({self.eot_id, *(self.special_tokens[name] for name in turns if name in self.special_tokens)})

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that decides ids; formatting and file names do not count."""
        parts = {key: self._content[key] for key in ("added_tokens", "normalizer", "pre_tokenizer", "model")}
        return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def to_json(self) -> str:
        """The content of its `tokenizer.json`."""
        text: str = self._with_specials.to_str()
        return text

    @cached_property
    def pattern(self) -> str | None:
        """The regular expression that splits text, where there is just one and nothing else changes the text."""
        if self._content["normalizer"] is not None:
            return None
        splitter = self._content["pre_tokenizer"] or {}
        steps = splitter["pretokenizers"] if splitter.get("type") == "Sequence" else [splitter]
        regexes = [step["pattern"].get("Regex") for step in steps if step.get("type") == "Split"]
        by_itself = any(step.get("type") == "ByteLevel" and step.get("use_regex") for step in steps)
        prefixed = any(step.get("add_prefix_space") for step in steps)
        known = all(step.get("type") in ("Split", "ByteLevel") for step in steps)
        if not known or prefixed or len(regexes) + by_itself != 1:
            return None
        return PATTERNS["gpt2"] if by_itself else regexes[0]

    @cached_property
    def pattern_name(self) -> str | None:
        """`gpt2`, `llama3` or `qwen2` where text is split by one of these, else None."""
        text = json.dumps(self._content["pre_tokenizer"])
        for name, pattern in PATTERNS.items():
            if json.dumps(pattern) in text:
                return name
        return "gpt2" if '"use_regex": true' in text else None

    @cached_property
    def is_byte_level(self) -> bool:
        """Whether each token is a string of bytes."""
        decoder = self._content["decoder"]
        return bool(decoder and decoder["type"] == "ByteLevel")

    @cached_property
    def normalizer(self) -> str | None:
        """How text is changed before it is split, such as `NFC`; None where every text comes back as it was."""
        normalizer = self._content["normalizer"]
        return None if normalizer is None else str(normalizer["type"])

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The bytes that each id stands for; none for special tokens and gaps."""
        table = [b""] * self.vocab_size
        for token, number in self._with_specials.get_vocab(with_added_tokens=True).items():
            if token not in self.special_tokens:
                table[number] = self._bytes_of(token)
        return table

    def _bytes_of(self, token: str) -> bytes:
        if token in self.added_tokens:  # these are spelled as they are
            return token.encode()
        if self.is_byte_level and all(character in BYTE_OF_CHARACTER for character in token):
            return bytes(BYTE_OF_CHARACTER[character] for character in token)
        return token.replace("▁", " ").encode()

    # ------------------------------------------------------------ encoding

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Token ids of a text. With `allow_special`, the text of a special token becomes that token."""
        ids: list[int] = self.encode_batch([text], allow_special=allow_special)[0].tolist()
        return ids

    def encode_batch(self, texts: Sequence[str], *, allow_special: bool = False) -> list[np.ndarray]:
        """Token ids of each text, (number of tokens) int64."""
        backend = self._with_specials if allow_special else self._plain
        chunks = [self._chunks(text) for text in texts]
        flat = [chunk for pieces in chunks for chunk in pieces]
        encoded = iter(backend.encode_batch_fast(flat, add_special_tokens=False))
        return [
            np.concatenate([np.empty(0, np.int64), *(np.array(next(encoded).ids, np.int64) for _ in pieces)])
            for pieces in chunks
        ]

    def _chunks(self, text: str) -> list[str]:
        """Pieces of a long text that encode to the same ids as the whole."""
        if len(text) <= _CHUNK_CHARACTERS or self.pattern_name is None:
            return [text]
        return list(cut_at_safe_borders(text, _CHUNK_CHARACTERS))

    # ------------------------------------------------------------ decoding

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of token ids; bytes that are no UTF-8 become U+FFFD."""
        text: str = self._with_specials.decode(list(ids), skip_special_tokens=skip_special)
        return text

    def stream(self) -> StreamDecoder:
        """Decodes ids one by one."""
        return StreamDecoder(self)


class StreamDecoder:
    """Decodes token by token and never emits half a character. Special tokens are left out."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._ids: list[int] = []
        self._text = ""

    def push(self, token_id: int) -> str:
        """The characters that this token completes, possibly none."""
        if self._tokenizer.is_byte_level:
            return self._utf8.decode(self._tokenizer.token_bytes[token_id])
        self._ids.append(token_id)  # other decoders look at their neighbours, so all is decoded again
        text = self._tokenizer.decode(self._ids)
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        new, self._text = text[len(self._text) :], text
        return new

    def finish(self) -> str:
        """What is left of a character that never came whole."""
        if self._tokenizer.is_byte_level:
            return self._utf8.decode(b"", final=True)
        return self._tokenizer.decode(self._ids)[len(self._text) :]


def _chat_template(folder: Path) -> str | None:
    """The template beside a `tokenizer.json`: in a file of its own, or in `tokenizer_config.json`."""
    alone, config = folder / "chat_template.jinja", folder / CONFIG_FILE
    if alone.is_file():
        return alone.read_text(encoding="utf-8")
    template = json.loads(config.read_text(encoding="utf-8")).get("chat_template") if config.is_file() else None
    return template if isinstance(template, str) else None


def cut_at_safe_borders(text: str, size: int) -> Iterator[str]:
    """Cut a text into pieces of at least `size` characters, only where every preset pattern ends a token anyway."""
    start = 0
    while (border := _SAFE_BORDER.search(text, min(start + size, len(text)))) is not None:
        yield text[start : border.start()]
        start = border.start()
    yield text[start:]


def _spell(token: bytes) -> str:
    return "".join(CHARACTER_OF_BYTE[byte] for byte in token)


def _byte_level_bpe(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    pattern: str,
    special_tokens: Sequence[str],
    *,
    ignore_merges: bool = False,
) -> tokenizers.Tokenizer:
    """The library's object for a byte-level BPE whose text is split by `pattern`."""
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=ignore_merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens])
    return backend
