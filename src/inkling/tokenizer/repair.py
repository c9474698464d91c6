"""Finding what is wrong with a tokenizer that somebody carries, and mending what can be mended.

The ids of tokens never move, since rows of embedding matrices depend on them: what is added comes at the end.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from inkling.errors import TokenizerError, reason_of
from inkling.tokenizer.encoders import awkward_strings
from inkling.tokenizer.foreign import merge_up_to
from inkling.tokenizer.stand_ins import BYTE_OF_CHARACTER, CHARACTER_OF_BYTE
from inkling.tokenizer.tokenizer import EOT, TOKENIZER_FILE, Tokenizer

_END_NAMES = (EOT, "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>", "[SEP]")
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


@dataclass
class Repair:
    """What was found, and the tokenizer after mending.

    Attributes:
        found: What is wrong, and what was done about it; empty when nothing is.
    """

    tokenizer: Tokenizer
    found: list[str] = field(default_factory=list)


def repair(source: Path) -> Repair:
    """Look at a `tokenizer.json`, a folder with one, or a folder with `vocab.json` and perhaps `merges.txt`.

    Raises TokenizerError for what cannot be mended, with the reason.
    """
    content, found = _read(source)
    mending = _Mending(source, content, found)
    mending.run()
    try:
        tokenizer = Tokenizer(Backend.from_str(json.dumps(content)))
    except Exception as error:  # the library raises bare Exception
        reason = " ".join(str(error).split())[:200]
        raise TokenizerError(f"{source} cannot be mended: what is left still fails ({reason})") from None
    _check_round_trip(source, tokenizer)
    return Repair(tokenizer, mending.found)


def _read(source: Path) -> tuple[dict[str, Any], list[str]]:
    """The JSON content, made up from `vocab.json` and `merges.txt` where there is no `tokenizer.json`."""
    file = source / TOKENIZER_FILE if source.is_dir() else source
    found: list[str] = []
    if source.is_dir() and not file.exists():
        names = [name for name in ("vocab.json", "encoder.json") if (source / name).exists()]
        if not names:
            raise TokenizerError(f"{source} holds no {TOKENIZER_FILE} and no vocab.json")
        vocabulary = _load(source / names[0], found)
        merges_files = [source / name for name in ("merges.txt", "vocab.bpe") if (source / name).exists()]
        lines = merges_files[0].read_text(encoding="utf-8").splitlines() if merges_files else []
        merges = [line for line in lines if line and not line.startswith("#version")]
        return {"version": "1.0", "model": {"type": "BPE", "vocab": vocabulary, "merges": merges}}, found
    content = _load(file, found)
    if "model" not in content and all(isinstance(value, int) for value in content.values()):
        found.append("the file is a bare vocabulary: taken as that of a byte-pair encoding")
        content = {"version": "1.0", "model": {"type": "BPE", "vocab": content, "merges": []}}
    return content, found


def _load(file: Path, found: list[str]) -> dict[str, Any]:
    """A JSON object; of names that stand in it twice, the first counts."""

    def first_counts(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for name, value in pairs:
            content.setdefault(name, value)
        if len(content) < len(pairs):
            found.append(f"{len(pairs) - len(content)} names stand twice in an object: the first ones count")
        return content

    try:
        content = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=first_counts)
    except FileNotFoundError:
        raise TokenizerError(f"there is no {file}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise TokenizerError(f"{file} cannot be mended: it is no JSON or cut short ({reason_of(error)})") from None
    if not isinstance(content, dict):
        raise TokenizerError(f"{file} cannot be mended: it holds no object")
    return content


class _Mending:
    """The steps, each on what the one before left."""

    def __init__(self, source: Path, content: dict[str, Any], found: list[str]) -> None:
        self.source = source
        self.content = content
        self.found = found
        model = content.get("model")
        if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
            raise self._refuse("it has no vocabulary")
        if model.get("type", "BPE") != "BPE":
            raise self._refuse(f"it is a {model['type']} model; only byte-pair encodings are")
        model["type"] = "BPE"
        self.model = model
        self.vocabulary: dict[str, int] = model["vocab"]
        for token, number in self.vocabulary.items():
            if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                raise self._refuse(f"the id of {token!r} is {number!r}")
        if not self.vocabulary:
            raise self._refuse("its vocabulary is empty")

    def run(self) -> None:
        """All of them."""
        for key in ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"):
            self.content.setdefault(key, None)
        for key in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
            self.model.setdefault(key, None)
        self._added_tokens()
        self._duplicate_ids()
        self._bytes()
        self._merges()
        self._special_tokens()
        self._gaps()
        self._steps()

    def _refuse(self, why: str) -> TokenizerError:
        return TokenizerError(f"{self.source} cannot be mended: {why}")

    def _next_id(self) -> int:
        taken = [*self.vocabulary.values(), *(token["id"] for token in self.content["added_tokens"])]
        return 1 + int(max(taken))

    def _added_tokens(self) -> None:
        """Every added token has a content and an id that agrees with the vocabulary."""
        given = self.content.get("added_tokens") or []
        kept = []
        for token in given if isinstance(given, list) else []:
            if not isinstance(token, dict) or not isinstance(token.get("content"), str) or not token["content"]:
                self.found.append(f"an added token without content: dropped ({token!r})"[:120])
                continue
            known = self.vocabulary.get(token["content"])
            if not isinstance(token.get("id"), int) or (known is not None and token["id"] != known):
                self.found.append(f"added token {token['content']!r}: its id is that of the vocabulary now")
                token["id"] = known
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            kept.append({**flags, "special": False, **token})
        self.content["added_tokens"] = [token for token in kept if token["id"] is not None]
        for token in kept:
            if token["id"] is None:
                token["id"] = self._next_id()
                self.content["added_tokens"].append(token)

    def _duplicate_ids(self) -> None:
        """No two tokens have the same id: the first keeps it, others come at the end."""
        owner: dict[int, str] = {}
        moved = []
        for token, number in self.vocabulary.items():
            if owner.setdefault(number, token) != token:
                moved.append(token)
        for token in moved:
            self.vocabulary[token] = self._next_id()
        for added in self.content["added_tokens"]:
            if owner.setdefault(added["id"], added["content"]) != added["content"]:
                moved.append(added["content"])
                added["id"] = self.vocabulary.get(added["content"], self._next_id())
        if moved:
            self.found.append(
                f"{len(moved)} tokens had the id of another one ({', '.join(map(repr, moved[:4]))}): they have new ids "
                "at the end, for which a model needs new rows"
            )

    def _bytes(self) -> None:
        """All 256 bytes are tokens, so that every text can be spelled."""
        missing = [character for character in CHARACTER_OF_BYTE.values() if character not in self.vocabulary]
        if not missing:
            return
        added = {token["content"] for token in self.content["added_tokens"]}
        ordinary = [token for token in self.vocabulary if token not in added]
        spelled = sum(all(character in BYTE_OF_CHARACTER for character in token) for token in ordinary)
        if spelled < 0.9 * len(ordinary):
            raise self._refuse("its tokens are not spelled in bytes, so no bytes can be added")
        for character in missing:
            self.vocabulary[character] = self._next_id()
        self.found.append(f"{len(missing)} of the 256 bytes were no tokens: added at the end")

    def _merges(self) -> None:
        """Merges are pairs of tokens whose result is a token, each once; rebuilt when there are none."""
        given = self.model.get("merges") or []
        pairs: dict[tuple[str, str], None] = {}
        problems: Counter[str] = Counter()
        for merge in given:
            parts = tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge)
            if len(parts) != 2 or not all(isinstance(part, str) for part in parts):
                problems["are no pairs"] += 1
            elif any(part not in self.vocabulary for part in (*parts, "".join(parts))):
                problems["name tokens that are not in the vocabulary"] += 1
            elif parts in pairs:
                problems["stand twice"] += 1
            else:
                pairs[parts[0], parts[1]] = None
        self.found += [f"{count} merges {what}: dropped" for what, count in problems.items()]
        added = {token["content"] for token in self.content["added_tokens"]}
        longer = [token for token in self.vocabulary if len(token) > 1 and token not in added and _is_bytes(token)]
        if longer and not pairs:
            pairs = dict.fromkeys(self._merges_by_rank(longer))
            lost = len(longer) - len({left + right for left, right in pairs})
            self.found.append(
                f"there were no merges: {len(pairs)} made from the order of the vocabulary"
                + (f"; {lost} tokens cannot be reached" if lost else "")
            )
        self.model["merges"] = [list(pair) for pair in pairs]

    def _merges_by_rank(self, longer: list[str]) -> list[tuple[str, str]]:
        ranks = {bytes(BYTE_OF_CHARACTER[c] for c in t): n for t, n in self.vocabulary.items() if _is_bytes(t)}
        merges = []
        for token in sorted(longer, key=self.vocabulary.__getitem__):
            data = bytes(BYTE_OF_CHARACTER[character] for character in token)
            parts = merge_up_to(data, ranks, self.vocabulary[token])
            if len(parts) == 2:
                left, right = ("".join(CHARACTER_OF_BYTE[byte] for byte in part) for part in parts)
                merges.append((left, right))
        return merges

    def _special_tokens(self) -> None:
        """There is a token that ends a document, and tokens that look like control tokens are."""
        added = {token["content"]: token for token in self.content["added_tokens"]}
        for token in list(self.vocabulary):
            looks = token in _END_NAMES or (token.startswith("<|") and token.endswith("|>") and len(token) > 4)
            if looks and not (token in added and added[token]["special"]):
                self.found.append(f"{token!r} was an ordinary token: it is a special one now")
                self._mark_special(token, self.vocabulary[token])
        names = {token["content"] for token in self.content["added_tokens"] if token["special"]}
        if not names & set(_END_NAMES):
            self.found.append(f"no token ends a document: {EOT} added at the end")
            self._mark_special(EOT, self._next_id())

    def _mark_special(self, token: str, number: int) -> None:
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        self.vocabulary[token] = number  # the library gives an id of its own to what is not in it
        others = [added for added in self.content["added_tokens"] if added["content"] != token]
        self.content["added_tokens"] = [*others, {"id": number, "content": token, **flags, "special": True}]

    def _gaps(self) -> None:
        """Every id up to the highest is a token."""
        taken = {*self.vocabulary.values(), *(token["id"] for token in self.content["added_tokens"])}
        gaps = [number for number in range(max(taken)) if number not in taken]
        for token in self.content["added_tokens"]:
            self.vocabulary[token["content"]] = token["id"]
        if len(gaps) > len(taken):
            raise self._refuse(f"{len(gaps):,} ids below the highest are no tokens")
        for number in gaps:
            self._mark_special(f"<|reserved_{number}|>", number)
        if gaps:
            self.found.append(f"{len(gaps)} ids were no tokens: filled with <|reserved_{gaps[0]}|> and so on")
        self.content["added_tokens"].sort(key=lambda token: token["id"])

    def _steps(self) -> None:
        """Text is split and joined in bytes."""
        if self.content["pre_tokenizer"] is None:
            self.content["pre_tokenizer"] = dict(_BYTE_LEVEL)
            self.found.append("nothing said how text is split: GPT-2's way is set")
        if self.content["decoder"] is None:
            self.content["decoder"] = dict(_BYTE_LEVEL)
            self.found.append("nothing said how tokens are joined: bytes are set")
        if self.model["unk_token"] is not None:
            self.found.append(f"{self.model['unk_token']!r} stood for unknown text, of which bytes leave none: removed")
            self.model["unk_token"] = None
        processor = self.content["post_processor"]
        if processor is not None and not _agrees(processor, self.content["added_tokens"]):
            self.content["post_processor"] = None
            self.found.append("the template around texts names ids of other tokens: removed")


def _is_bytes(token: str) -> bool:
    return all(character in BYTE_OF_CHARACTER for character in token)


def _agrees(processor: dict[str, Any], added: list[dict[str, Any]]) -> bool:
    """Whether a template's special tokens have the ids that they have elsewhere."""
    ids = {token["content"]: token["id"] for token in added}
    named = processor.get("special_tokens")
    if not isinstance(named, dict):
        return True
    return all([ids.get(token)] == entry.get("ids") for token, entry in named.items())


def _check_round_trip(source: Path, tokenizer: Tokenizer) -> None:
    if not tokenizer.is_byte_level or tokenizer.normalizer:
        return
    for text in awkward_strings(tokenizer):
        if tokenizer.decode(tokenizer.encode(text), skip_special=False) != text:
            raise TokenizerError(f"{source} cannot be mended: {text[:40]!r} comes back changed")
