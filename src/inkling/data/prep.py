"""Files and folders → a data folder: read, clean, drop duplicates, split, tokenize, write shards.

The folder is built beside its place and moved there when it is whole, so a killed run leaves nothing that looks
finished. Cleaned text and shards are kept in portions; a second run reuses those that are there. Memory is bounded by
the size of a portion, and the result does not depend on the number of processes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from inkling import files
from inkling.config import Field, Section
from inkling.data.account import Account
from inkling.data.clean import Profile
from inkling.data.dedup import ExactDuplicates
from inkling.data.documents import Source, list_sources
from inkling.data.portions import Entry, Plan, Portion, portions_of, read_portion, tokenizer_sample
from inkling.data.shards import Dataset, ShardInfo, SplitName, shard_name, token_dtype, write_manifest, write_shard
from inkling.data.split import is_validation
from inkling.errors import DataError
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.train import train_bpe, train_char

SHARD_CHARACTERS = 16 << 20
"""Text that is encoded and written as one shard."""

ProgressFn = Callable[[str, float, float | None, str], None]
"""(phase, done, total, detail)"""


class PrepOptions(Section):
    """How text becomes a data folder."""

    tokenizer: str | None = None
    """Use this tokenizer: a folder, a tokenizer.json or tiktoken:NAME. Default: train one on the training text."""
    level: Literal["auto", "bpe", "char"] = "auto"
    """Of a new tokenizer. auto: characters below 3 MB of text, byte-pair encoding above."""
    vocab_size: int | None = Field(None, ge=260)
    """Of a new byte-pair encoding, in tokens. Default: 2,048 to 8,192 by the amount of text."""
    pattern: Literal["gpt2", "llama3", "qwen2"] | None = None
    """How a new tokenizer splits text. Default: qwen2 below 16,384 tokens, else llama3."""
    clean: Profile = "auto"
    """Cleaning rules. auto: code for source files, prose for the rest. none: the text as it is."""
    split: Literal["auto", "hash", "tail"] = "auto"
    """Validation text. hash: documents chosen by their content. tail: the end of the last text. auto: hash where there
    are enough documents."""
    val_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the text that is kept for validation."""
    seed: int = Field(0, ge=0)
    """Seed of the split by hash."""


@dataclass(frozen=True)
class Prepared:
    """What `prep` made: the folder's manifest, the account of the text, and whether it was there already."""

    manifest: dict[str, Any]
    report: dict[str, Any]
    was_there: bool
    notes: list[str]


def prep(
    paths: Sequence[str],
    out: Path,
    options: PrepOptions,
    *,
    overwrite: bool = False,
    num_workers: int | None = None,
    on_progress: ProgressFn = lambda phase, done, total, detail: None,
) -> Prepared:
    """Make the data folder `out` from files and folders.

    Args:
        overwrite: Replace a finished folder that was made in another way; it stays until the new one is whole.
        num_workers: Processes. Default: one for each core.

    Raises:
        DataError: Nothing to read, nothing left after cleaning, `out` is something else, or the disk is full.
    """
    sources = list_sources(paths)
    fingerprint = _fingerprint(sources, options)
    if (out / "manifest.json").exists() and not overwrite:
        manifest = Dataset.open(out).manifest
        if manifest.get("fingerprint") != fingerprint:
            raise DataError(f"{out} was made from other text or in another way: choose another -o, or add --overwrite")
        return Prepared(manifest, _read_json(out / "report.json"), was_there=True, notes=[])
    if out.exists() and not (out / "manifest.json").exists() and any(out.iterdir()):
        raise DataError(f"{out} holds something else; choose another -o")
    with _explain_full_disk(out):
        work = _Preparation(sources, _work_folder(out, fingerprint), options, num_workers or _num_cores(), on_progress)
        prepared = work.run(fingerprint)
        _move_into_place(work.folder, out)
    return prepared


class _Preparation:
    """The phases of one preparation, in a folder of its own."""

    def __init__(
        self, sources: list[Source], folder: Path, options: PrepOptions, num_workers: int, on_progress: ProgressFn
    ) -> None:
        self.sources = sources
        self.folder = folder
        self.options = options
        self.num_workers = num_workers
        self.on_progress = on_progress
        self.account = Account()
        self.notes: list[str] = []

    def run(self, fingerprint: str) -> Prepared:
        """All phases; returns when the folder is whole."""
        portions = self._read_and_clean()
        plan = self._plan(portions)
        tokenizer = self._tokenizer(plan)
        shards = self._encode(plan, tokenizer)
        more = {
            "fingerprint": fingerprint,
            "split": plan.rule,
            "options": self.options.model_dump(mode="json"),
            "sources": [source for portion in portions for source in portion.index()["sources"]],
            "notes": self.notes,
        }
        report = self.account.as_dict()
        files.write_json(self.folder / "report.json", report)
        tokenizer.save(self.folder)
        write_manifest(self.folder, tokenizer=tokenizer, shards=shards, more=more)
        shutil.rmtree(self.folder / "work")
        return Prepared(Dataset.open(self.folder).manifest, report, was_there=False, notes=self.notes)

    # ------------------------------------------------------------ phase 1: read and clean

    def _read_and_clean(self) -> list[Portion]:
        """Each portion of the sources as a file of cleaned documents."""
        groups = list(portions_of(self.sources))
        total = sum(source.num_bytes for source in self.sources)
        jobs = [
            (self.folder / "work" / f"text-{number:05d}.jsonl", group, self.options.clean)
            for number, group in enumerate(groups)
        ]
        done, portions = 0, []
        for portion, group in zip(self._map(read_portion, jobs), groups, strict=True):
            portions.append(portion)
            done += sum(source.num_bytes for source in group)
            self.on_progress("reading", done, total, f"{done / 1e6:.1f} MB")
        return portions

    def _map(self, function: Callable[[Any], Any], jobs: list[Any]) -> Iterator[Any]:
        """Results in order, from as many processes as are wanted."""
        if self.num_workers == 1 or len(jobs) == 1:
            yield from map(function, jobs)
            return
        context = multiprocessing.get_context("spawn")  # forking a process that has threads may hang
        with ProcessPoolExecutor(self.num_workers, mp_context=context, initializer=_ignore_ctrl_c) as pool:
            try:
                yield from pool.map(function, jobs)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    # ------------------------------------------------------------ phase 2: duplicates and split

    def _plan(self, portions: list[Portion]) -> Plan:
        """Which documents are kept, and which are for validation. Looks at hashes and sizes, not at text."""
        seen = ExactDuplicates()
        kept: list[list[Entry]] = []
        for portion in portions:
            index = portion.index()
            for skipped in index["skipped"]:
                self.account.drop(skipped["reason"], skipped["num_bytes"], skipped["example"])
                self.account.num_documents += 1
                self.account.num_bytes += skipped["num_bytes"]
            kept.append([])
            for number, (digest, characters, num_bytes, source) in enumerate(index["documents"]):
                self.account.num_documents += 1
                self.account.num_bytes += num_bytes
                if not seen.add(int(digest, 16)):
                    self.account.drop("duplicate", num_bytes, source)
                    continue
                self.account.kept_documents += 1
                self.account.kept_bytes += num_bytes
                kept[-1].append(Entry(number, int(digest, 16), characters))
        if not self.account.kept_documents:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.account.dropped.most_common(4))
            raise DataError(f"no text is left: all {self.account.num_documents} documents were dropped ({reasons})")
        return self._split(portions, kept)

    def _split(self, portions: list[Portion], kept: list[list[Entry]]) -> Plan:
        options = self.options
        total = sum(entry.characters for entries in kept for entry in entries)
        chosen = {
            entry.digest
            for entries in kept
            for entry in entries
            if is_validation(entry.digest, options.val_fraction, options.seed)
        }
        share = sum(entry.characters for entries in kept for entry in entries if entry.digest in chosen) / total
        usable = 0.5 * options.val_fraction <= share <= 2 * options.val_fraction and share < 1
        if options.split == "hash" and not 0 < share < 1:
            raise DataError(
                f"splitting {self.account.kept_documents} documents by hash leaves one side empty. Use --split tail"
            )
        if options.split == "hash" or (options.split == "auto" and usable):
            rule = f"hash: {share:.1%} of the text in {len(chosen)} whole documents, chosen by their content"
            return Plan(portions, kept, chosen, None, rule)
        cut = int(total * (1 - options.val_fraction) + 1e-9)
        if not 0 < cut < total:
            raise DataError(f"the text has only {total} characters: too few to keep some for validation")
        rule = f"tail: the last {total - cut:,} of {total:,} characters"
        if options.split == "auto":
            self.notes.append(f"validation is the end of the text: {self.account.kept_documents} documents are too few")
        return Plan(portions, kept, set(), cut, rule)

    # ------------------------------------------------------------ phase 3: tokenizer

    def _tokenizer(self, plan: Plan) -> Tokenizer:
        """The given tokenizer, or a new one, trained on training text only."""
        options = self.options
        if options.tokenizer is not None:
            tokenizer = Tokenizer.load(options.tokenizer)
            tokenizer.eot_id  # noqa: B018 - raises now rather than after the hours of encoding
            return tokenizer
        finished = self.folder / "work" / "tokenizer"
        if (finished / "tokenizer.json").exists():
            return Tokenizer.load(finished)
        level, vocab_size = self._size_of_tokenizer()
        texts = tokenizer_sample(plan)
        if level == "char":
            tokenizer = train_char(texts)
        else:
            tokenizer = train_bpe(
                texts,
                vocab_size,
                pattern=options.pattern,
                num_workers=self.num_workers,
                on_progress=lambda done, total: self.on_progress("tokenizer", done, total, f"{vocab_size:,} tokens"),
            )
        tokenizer.save(finished)
        return tokenizer

    def _size_of_tokenizer(self) -> tuple[str, int]:
        options, megabytes = self.options, self.account.kept_bytes / 1e6
        level = options.level
        if level == "auto":
            level = "char" if megabytes < 3 and options.vocab_size is None else "bpe"
        vocab_size = options.vocab_size or (2048 if megabytes < 10 else 4096 if megabytes < 50 else 8192)
        what = "characters" if level == "char" else f"byte-pair encoding, {vocab_size:,} tokens"
        self.notes.append(f"tokenizer: {what}, for {megabytes:.1f} MB of text")
        return level, vocab_size

    # ------------------------------------------------------------ phase 4: encode

    def _encode(self, plan: Plan, tokenizer: Tokenizer) -> dict[SplitName, list[ShardInfo]]:
        """Shards of about `SHARD_CHARACTERS`, training and validation text apart, in the order of the portions."""
        shards: dict[SplitName, list[ShardInfo]] = {"train": [], "validation": []}
        done, total = 0, sum(entry.characters for entries in plan.kept for entry in entries)
        for number in range(len(plan.portions)):
            note = self.folder / "work" / f"shards-{number:05d}.json"
            if note.exists():  # written by a run that was killed later
                made = {split: [ShardInfo(**info) for info in infos] for split, infos in _read_json(note).items()}
            else:
                first = {split: len(infos) for split, infos in shards.items()}
                made = self._shards_of_portion(number, plan, tokenizer, first)
                files.write_json(note, {split: [asdict(info) for info in infos] for split, infos in made.items()})
            for split, infos in made.items():
                shards[split] += infos
            done += sum(entry.characters for entry in plan.kept[number])
            self.on_progress("encoding", done, total, f"{sum(i.num_tokens for i in shards['train']):,} tokens")
        return shards

    def _shards_of_portion(
        self, number: int, plan: Plan, tokenizer: Tokenizer, first: dict[SplitName, int]
    ) -> dict[SplitName, list[ShardInfo]]:
        """Encode one portion, holding no more than a shard's text in memory; `first` is each split's next number."""
        made: dict[SplitName, list[ShardInfo]] = {"train": [], "validation": []}
        waiting: dict[SplitName, list[str]] = {"train": [], "validation": []}
        size: dict[SplitName, int] = {"train": 0, "validation": 0}

        def write(split: SplitName) -> None:
            if waiting[split]:
                name = shard_name(split, first[split] + len(made[split]))
                made[split].append(self._write_shard(name, waiting[split], tokenizer))
                waiting[split], size[split] = [], 0

        for split, text in plan.texts(number):
            waiting[split].append(text)
            size[split] += len(text)
            if size[split] >= SHARD_CHARACTERS:
                write(split)
        for split in made:
            write(split)
        return made

    def _write_shard(self, name: str, texts: list[str], tokenizer: Tokenizer) -> ShardInfo:
        ids = [np.append(document, tokenizer.eot_id) for document in tokenizer.encode_batch(texts)]
        num_bytes = sum(len(text.encode()) for text in texts)
        return write_shard(self.folder, name, ids, num_bytes, token_dtype(tokenizer.vocab_size))


# ---------------------------------------------------------------- folders


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _fingerprint(sources: list[Source], options: PrepOptions) -> str:
    """Changes with the sources (name, size, time of change) and with every option."""
    content = [[(source.name, source.num_bytes, source.modified_ns) for source in sources], options.model_dump()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _work_folder(out: Path, fingerprint: str) -> Path:
    """The folder beside `out` in which it is built; what is there is kept when it was for the same result."""
    folder = out.with_name(f".unfinished-{out.name}")
    mark = folder / "work" / "fingerprint"
    if not mark.exists() or mark.read_text() != fingerprint:
        shutil.rmtree(folder, ignore_errors=True)
        files.write_text(mark, fingerprint)
    return folder


def _move_into_place(folder: Path, out: Path) -> None:
    if out.exists():
        old = out.with_name(f".old-{out.name}")
        shutil.rmtree(old, ignore_errors=True)
        out.replace(old)
        folder.replace(out)
        shutil.rmtree(old)
    else:
        folder.replace(out)
    files.sync_folder(out.parent)


@contextmanager
def _explain_full_disk(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DataError(
                f"the disk is full: {out} is unfinished. Free some space and run the same command again"
            ) from error
        raise


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ignore_ctrl_c() -> None:
    """Ctrl-C reaches every process of the terminal; the main one decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
