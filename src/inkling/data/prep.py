"""Files and folders → a data folder: read, clean, drop duplicates, split, tokenize, write shards.

The folder is built beside its place and moved there when it is whole, so a killed run leaves nothing that looks
finished. Each unit of text, portion and shard is a file that a second run reuses. Memory is bounded by the size of a
portion and a few numbers for each document, and the result does not depend on the number of processes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from inkling import files
from inkling.data.account import NUM_EXAMPLES, Account
from inkling.data.clean import Cleaning
from inkling.data.cluster import run_with_datatrove
from inkling.data.decontaminate import Benchmark
from inkling.data.documents import Source, Unit, list_sources, units_of
from inkling.data.encoding import EncodingJob, encode
from inkling.data.leakage import LEAKED_SHARE, leaked_shares
from inkling.data.plan import TRAIN, VALIDATION, Plan, make_plan
from inkling.data.portions import Portions
from inkling.data.prep_options import PrepOptions, check_options
from inkling.data.report_page import write_page
from inkling.data.rows import write_rows
from inkling.data.shards import (
    Dataset,
    ShardInfo,
    SplitName,
    TokenSplit,
    token_dtype,
    without_documents,
    write_manifest,
)
from inkling.data.steps import Step, run, steps
from inkling.data.unfinished import explain_full_disk, fingerprint_of, move_into_place, work_folder
from inkling.errors import DataError
from inkling.processes import map_in_processes, num_cores
from inkling.tokenizer import DEFAULT_SPECIALS, Tokenizer
from inkling.tokenizer.encoders import fastest
from inkling.tokenizer.patterns import choose_pattern
from inkling.tokenizer.train import train_bpe, train_char

TOKENIZER_SAMPLE_CHARACTERS = 100_000_000
_NUM_PROBED, _PROBED_CHARACTERS = 50, 4000
_FEW_BYTES = 8 << 20
"""Starting a process takes longer than encoding this."""

Executor = Literal["local", "datatrove"]
ProgressFn = Callable[[str, float, float | None, str], None]
"""(phase, done, total, detail)"""


@dataclass(frozen=True)
class Prepared:
    """What `prep` made: the folder's manifest, the account of the text, and whether it was there already."""

    manifest: dict[str, Any]
    report: dict[str, Any]
    was_there: bool


def prep(
    paths: Sequence[str],
    out: Path,
    options: PrepOptions,
    *,
    overwrite: bool = False,
    num_workers: int | None = None,
    executor: Executor = "local",
    on_progress: ProgressFn = lambda phase, done, total, detail: None,
) -> Prepared:
    """Make the data folder `out` from files and folders.

    Args:
        overwrite: Replace a finished folder that was made in another way; it stays until the new one is whole.
        num_workers: Processes. Default: one for each core.
        executor: What reads and cleans: our own processes, or datatrove's.

    Raises:
        DataError: Nothing to read, nothing left after cleaning, `out` is something else, or the disk is full.
    """
    check_options(options)
    sources = list_sources(paths)
    fingerprint = fingerprint_of(sources, options)
    if (out / "manifest.json").exists() and not overwrite:
        manifest = Dataset.open(out).manifest
        if manifest.get("fingerprint") != fingerprint:
            raise DataError(f"{out} was made from other text or in another way: choose another -o, or add --overwrite")
        return Prepared(manifest, json.loads((out / "report.json").read_text(encoding="utf-8")), was_there=True)
    if out.exists() and not (out / "manifest.json").exists() and any(out.iterdir()):
        raise DataError(f"{out} holds something else; choose another -o")
    with explain_full_disk(out):
        folder = work_folder(out, fingerprint)
        work = _Preparation(sources, folder, options, num_workers or num_cores(), on_progress, executor)
        prepared = work.run(fingerprint)
        move_into_place(folder, out)
    return prepared


def prep_shard(
    paths: Sequence[str],
    out: Path,
    options: PrepOptions,
    *,
    shard: tuple[int, int],
    num_workers: int | None = None,
    on_progress: ProgressFn = lambda phase, done, total, detail: None,
) -> int:
    """Read and clean one share of the text for a later `prep` with the same arguments, which finds it done.

    Several machines that see the same folders can do so at the same time.

    Args:
        shard: (i, n): units i, i + n, i + 2 n, …

    Returns the number of units of this share. Raises DataError as `prep` does.
    """
    index, count = shard
    if not 0 <= index < count:
        raise DataError(f"--shard {index}/{count} does not exist: the first is 0/{count}, the last {count - 1}/{count}")
    check_options(options)
    sources = list_sources(paths)
    if (out / "manifest.json").exists():
        raise DataError(f"{out} is finished: there is nothing left to read for it. For a new one choose another -o")
    with explain_full_disk(out):
        folder = work_folder(out, fingerprint_of(sources, options))
        work = _Preparation(sources, folder, options, num_workers or num_cores(), on_progress)
        return work.read_and_clean(index, count)


def reading_steps(paths: Sequence[str], out: Path, options: PrepOptions) -> list[Step]:
    """The steps that read and clean for the data folder `out`, for an executor of datatrove; then run `prep`."""
    sources = list_sources(paths)
    folder = work_folder(out, fingerprint_of(sources, options))
    return _Preparation(sources, folder, options, 1, lambda *progress: None).steps()


class _Preparation:
    """The phases of one preparation, in a folder of its own."""

    def __init__(
        self,
        sources: list[Source],
        folder: Path,
        options: PrepOptions,
        num_workers: int,
        on_progress: ProgressFn,
        executor: Executor = "local",
    ) -> None:
        self.sources = sources
        self.folder = folder
        self.options = options
        self.num_workers = num_workers
        self.on_progress = on_progress
        self.executor = executor
        self.account = Account()
        self.notes: list[str] = []

    def run(self, fingerprint: str) -> Prepared:
        """All phases; returns when the folder is whole."""
        self.read_and_clean()
        portions = self._portions()
        plan = self._plan(portions)
        tokenizer = self._tokenizer(portions, plan)
        shards = self._encode(portions, plan, tokenizer)
        shards["validation"] = self._check_validation(portions, plan, tokenizer, shards)
        report = self.account.as_dict()
        files.write_json(self.folder / "report.json", report)
        tokenizer.save(self.folder)
        rows = write_rows(portions, plan, self.folder)
        if rows:
            counts = ", ".join(f"{entry['num_rows']:,} in {entry['file']}" for entry in rows.values())
            self.notes.append(f"rows of chats and preferences pass through whole: {counts}")
        more = {
            "fingerprint": fingerprint,
            "split": plan.rule,
            "options": self.options.model_dump(mode="json"),
            "sources": portions.sources,
            "notes": self.notes,
            "rows": rows,
        }
        write_manifest(self.folder, tokenizer=tokenizer, shards=shards, more=more)
        manifest = Dataset.open(self.folder).manifest
        write_page(self.folder / "report.html", report, manifest)
        shutil.rmtree(self.folder / "work")
        return Prepared(manifest, report, was_there=False)

    # ------------------------------------------------------------ phase 1: read and clean

    @cached_property
    def units(self) -> list[tuple[int, Unit]]:
        """All there is to read, numbered."""
        return list(enumerate(units_of(self.sources)))

    def read_and_clean(self, rank: int = 0, world_size: int = 1) -> int:
        """A share of the units as portions of cleaned documents; the number of units."""
        if self.executor == "datatrove":
            run_with_datatrove(self.steps(), self.folder / "work" / "datatrove", self.num_workers, len(self.units))
        benchmark = self._benchmark()
        units = self.units[rank::world_size]
        jobs = [ReadingJob((unit,), self.folder / "work", self.options, benchmark) for unit in units]
        done, total = 0, sum(part.num_bytes for _, unit in units for part in unit)
        for job, _ in zip(jobs, map_in_processes(read_and_clean, jobs, self._workers(total)), strict=True):
            done += sum(part.num_bytes for _, unit in job.units for part in unit)
            self.on_progress("reading", done, total, f"{done / 1e6:.1f} MB")
        return len(units)

    def steps(self) -> list[Step]:
        """The same as steps for an executor."""
        return _reading_steps(ReadingJob(tuple(self.units), self.folder / "work", self.options, self._benchmark()))

    def _benchmark(self) -> Benchmark | None:
        return Benchmark.read(self.options.keep_out) if self.options.keep_out else None

    def _portions(self) -> Portions:
        portions = Portions.read(self.folder / "work", len(self.units))
        self.account = portions.account
        self.notes += portions.notes
        return portions

    def _workers(self, num_bytes: int) -> int:
        return 1 if num_bytes < _FEW_BYTES else self.num_workers

    # ------------------------------------------------------------ phase 2: duplicates and split

    def _plan(self, portions: Portions) -> Plan:
        """What becomes of each document."""
        options = self.options
        plan = make_plan(
            portions,
            self.account,
            near_duplicates=options.near_duplicates,
            split=options.split,
            val_fraction=options.val_fraction,
            seed=options.seed,
            on_progress=lambda done, total: self.on_progress("duplicates", done, total, ""),
        )
        self.notes += plan.notes
        return plan

    # ------------------------------------------------------------ phase 3: tokenizer

    def _tokenizer(self, portions: Portions, plan: Plan) -> Tokenizer:
        """The given tokenizer, or a new one, trained on training text only; saved for the processes that encode."""
        options, saved = self.options, self.folder / "work" / "tokenizer"
        if options.tokenizer is not None:
            tokenizer = Tokenizer.load(options.tokenizer)
        else:
            level, vocab_size = self._size_of_tokenizer()
            if (saved / "tokenizer.json").exists():
                return Tokenizer.load(saved)
            tokenizer = self._new_tokenizer(level, vocab_size, _tokenizer_sample(portions, plan))
        tokenizer.save(saved)
        return tokenizer

    def _new_tokenizer(self, level: str, vocab_size: int, texts: Iterator[str]) -> Tokenizer:
        options = self.options
        specials = list(dict.fromkeys([*DEFAULT_SPECIALS, *options.special_tokens]))
        if level == "char":
            return train_char(texts, special_tokens=specials)
        return train_bpe(
            texts,
            vocab_size,
            pattern=choose_pattern(options.pattern, options.digits, vocab_size),
            special_tokens=specials,
            num_workers=self._workers(self.account.kept_bytes),
            on_progress=lambda done, total: self.on_progress("tokenizer", done, total, f"{vocab_size:,} tokens"),
        )

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

    def _encode(self, portions: Portions, plan: Plan, tokenizer: Tokenizer) -> dict[SplitName, list[ShardInfo]]:
        """A shard of each portion for each split; those of validation text are checked before they are taken over."""
        work = self.folder / "work"
        encoder, passed_over = fastest(tokenizer, _encoder_sample(portions))
        proved = "" if encoder.name == "tokenizers" else ", proved on a sample to give the ids of tokenizers"
        self.notes += [*passed_over, f"encoding with {encoder.name}{proved}"]
        jobs = []
        for number, portion in enumerate(portions.portions):
            start, stop = portions.starts[number : number + 2].tolist()
            cut = (plan.cut[0] - start, plan.cut[1]) if plan.cut and start <= plan.cut[0] < stop else None
            folders: dict[SplitName, Path] = {"train": self.folder, "validation": work}
            note = work / f"shards-{number:05d}.json"
            decisions = plan.decisions[start:stop]
            jobs.append(EncodingJob(portion, number, decisions, cut, work / "tokenizer", encoder.name, folders, note))
        shards: dict[SplitName, list[ShardInfo]] = {"train": [], "validation": []}
        done, total, num_tokens = 0, self.account.kept_bytes, 0
        for made in map_in_processes(encode, jobs, self._workers(total)):
            for split, info in made.items():
                shards[split].append(info)
                done += info.num_bytes
                num_tokens += info.num_tokens
            self.on_progress("encoding", done, total, f"{num_tokens:,} tokens")
        return shards

    # ------------------------------------------------------------ phase 5: validation text that is trained on

    def _check_validation(
        self, portions: Portions, plan: Plan, tokenizer: Tokenizer, shards: dict[SplitName, list[ShardInfo]]
    ) -> list[ShardInfo]:
        """Take over the validation shards without the documents that stand in the training text too."""
        work, dtype = self.folder / "work", token_dtype(tokenizer.vocab_size)
        validation = TokenSplit(work, shards["validation"], dtype)
        self.on_progress("leakage", 0, 1, "")
        leaked = leaked_shares(TokenSplit(self.folder, shards["train"], dtype), validation) >= LEAKED_SHARE
        self.on_progress("leakage", 1, 1, f"{leaked.sum()} of {validation.num_documents} validation documents")
        if leaked.any() and (plan.is_tail or leaked.all()):  # there would be none left
            self.notes.append("validation text stands in the training text too: scores will look better than they are")
            leaked[:] = False
        is_text = ~portions.whole_column("is_row")
        dropped = np.flatnonzero((plan.decisions == VALIDATION) & is_text)[leaked]
        sizes = portions.whole_column("num_bytes")[dropped]
        self.account.drop_kept(
            "in_training", len(dropped), int(sizes.sum()), portions.ids(dropped[:NUM_EXAMPLES].tolist())
        )
        return without_documents(validation, leaked, sizes, self.folder)


# ---------------------------------------------------------------- work that other processes do


@dataclass(frozen=True)
class ReadingJob:
    """Numbered units to read, and what becomes of their text."""

    units: tuple[tuple[int, Unit], ...]
    work: Path
    options: PrepOptions
    benchmark: Benchmark | None


def read_and_clean(job: ReadingJob) -> None:
    """Units to portions in the work folder."""
    run(_reading_steps(job))


def _reading_steps(job: ReadingJob) -> list[Step]:
    options = job.options
    cleaning = Cleaning(options.clean, options.mask_personal, tuple(options.languages))
    signatures = options.near_duplicates != "ignore"
    return steps(
        job.units, job.work, options.text_field, cleaning=cleaning, benchmark=job.benchmark, signatures=signatures
    )


def _encoder_sample(portions: Portions) -> list[str]:
    """Texts from all over."""
    numbers = np.unique(np.linspace(0, portions.num_documents - 1, _NUM_PROBED).astype(np.int64))
    return [text[:_PROBED_CHARACTERS] for text in portions.texts(numbers)]


def _tokenizer_sample(portions: Portions, plan: Plan) -> Iterator[str]:
    """Training texts for the tokenizer: all of them, or evenly spaced ones when there is much text."""
    numbers = np.flatnonzero(plan.decisions == TRAIN)
    total = int(portions.whole_column("characters")[numbers].sum())
    yield from portions.texts(numbers[:: max(1, -(-total // TOKENIZER_SAMPLE_CHARACTERS))])
    if plan.cut:
        document, characters = plan.cut
        yield from (text[:characters] for text in portions.texts(np.array([document])))
