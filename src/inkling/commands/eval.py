"""`inkling eval`: how well a run predicts a text, beside honest floors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from inkling import checkpoint
from inkling.commands._hooks import documents
from inkling.config import CommandSettings, Field, Positional
from inkling.data.loader import Batch, sequential_windows, windows_of_ids
from inkling.data.shards import Dataset
from inkling.errors import ConfigError, DataError
from inkling.eval import floors
from inkling.eval.perplexity import Score, bytes_per_token, evaluate
from inkling.models import LanguageModel
from inkling.progress import LiveProgress
from inkling.tokenizer import Tokenizer


class Settings(CommandSettings):
    """How well a run predicts a text, and what it can do, beside honest floors.

    Without --task: loss, perplexity and bits per byte over a whole text, the run's validation split or any file, with a
    95 % interval over its documents. Bits per byte compare models with different tokenizers; loss and perplexity do
    not. The floors are a byte trigram model of the training text, and xz -9.

    With --task: a score with its interval, beside what random weights, constant answers and byte trigrams reach. Tasks:
    arithmetic, code_suite, code_suite_fair, copying, formats, gsm8k, humaneval, mbpp, multiple_choice, python, sorting.
    Code is run in a sandbox. Results are kept in the run's folder `evaluations`.

    Example: inkling eval runs/notes
    Example: inkling eval runs/notes --text chapter.txt --json
    Example: inkling eval runs/code --task humaneval --task-data HumanEval.jsonl.gz --samples 20 --temperature 0.8
    Example: inkling eval --task humaneval --task-data HumanEval.jsonl.gz --completions answers.jsonl
    """

    run: Positional[Path | None] = None
    """Run directory, or any checkpoint folder with the same layout."""
    task: str | None = None
    """What to try."""
    task_data: Path | None = None
    """File of the task's questions, where it has one."""
    completions: Path | None = None
    """Score these answers instead of a run's: task_id and completion on each line (JSON)."""
    samples: int = Field(1, ge=1, le=1000)
    """Answers to each question; more than one need a --temperature."""
    temperature: float = Field(0.0, ge=0, le=10)
    """Of the answers; 0 takes the likeliest tokens."""
    max_tokens: int | None = Field(None, ge=1)
    """Of an answer. Default: the task's own."""
    limit: int | None = Field(None, ge=1)
    """Questions at most. Default: all, or 200 of those that are made on the spot."""
    shots: int | None = Field(None, ge=0)
    """Examples before each question, where the task has any. Default: the task's own."""
    seed: int = Field(0, ge=0)
    """Of answers and of questions that are made on the spot."""
    allow_weak_sandbox: bool = False
    """Run code where only time and memory can be limited."""
    text: Path | None = None
    """Text file to score, as one document. Default: the validation split that the run was trained beside."""
    data: Path | None = None
    """Data folder. Default: the one that the run names."""
    split: Literal["validation", "train"] = "validation"
    """Which split of the data folder."""
    context: int | None = Field(None, ge=2)
    """Tokens that the model sees at once. Default: all it was made for."""
    batch_size: int = Field(8, ge=1)
    """Windows at a time."""
    floors: bool = True
    """Also compute the floors."""
    as_json: bool = False
    """Print one JSON object on standard output."""


def run(settings: Settings) -> None:
    """Score and print."""
    if settings.task is not None:
        from inkling.commands._tasks import run_task

        run_task(settings)
        return
    if settings.completions is not None:
        raise ConfigError("--completions are answers to a --task")
    if settings.run is None:
        raise ConfigError("give a run, such as: inkling eval runs/notes")
    model, tokenizer = checkpoint.load_model(settings.run)
    context = settings.context or model.config.max_position_embeddings
    if settings.text is not None:
        text = read_text(settings.text)
        batches, what = batches_of_text(text, tokenizer, context, settings.batch_size), str(settings.text)
    else:
        dataset = dataset_of_run(settings.run, settings.data)
        dataset.check_tokenizer(tokenizer)
        split = dataset.validation if settings.split == "validation" else dataset.train
        batches = sequential_windows(split, context, settings.batch_size, dataset.eot_id)
        what = f"{settings.split} split of {dataset.folder}"
    with LiveProgress(quiet=settings.as_json) as progress:
        score = score_with_progress(model, tokenizer, batches, progress)
        sources = {} if settings.text is not None else score_sources(settings, model, tokenizer, dataset, progress)
        found: dict[str, float] = {}
        if settings.floors and settings.text is not None:
            found = {"xz": floors.xz_bits_per_byte([text.encode()])}
        elif settings.floors and settings.split == "validation":
            found = floors_of(dataset, tokenizer)
    if settings.as_json:
        result: dict[str, Any] = {"run": str(settings.run), "text": what, **score.as_dict(), "floors": found}
        if sources:
            result["sources"] = {name: source.as_dict() for name, source in sources.items()}
        print(json.dumps(result))
    else:
        print_score(what, score, found)
        for name, source in sources.items():
            print(f"  {name:<14} {source.bits_per_byte:.4f} bits per byte, {source.num_bytes:,} bytes")


def score_sources(
    settings: Settings, model: LanguageModel, tokenizer: Tokenizer, dataset: Dataset, progress: LiveProgress
) -> dict[str, Score]:
    """The score on each source of a mixture; nothing for a folder that is none."""
    if len(dataset.parts) < 2:
        return {}
    context = settings.context or model.config.max_position_embeddings
    found = {}
    for part in dataset.parts:
        split = part.validation if settings.split == "validation" else part.train
        batches = sequential_windows(split, context, settings.batch_size, dataset.eot_id)
        found[part.name] = score_with_progress(model, tokenizer, batches, progress)
    return found


def dataset_of_run(run: Path, data: Path | None) -> Dataset:
    """The data folder given, or the one that the run was trained on."""
    return Dataset.open(data if data is not None else Path(checkpoint.read_run(run).data["folder"]))


def read_text(path: Path) -> str:
    """A text file. Raises DataError in one line when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} as text: {error}") from None
    if not text:
        raise DataError(f"{path} is empty")
    return text


def batches_of_text(text: str, tokenizer: Tokenizer, context: int, batch_size: int) -> Iterator[Batch]:
    """Batches over a text as one document, its end included."""
    eot = tokenizer.eot_id
    return windows_of_ids(np.array([eot, *tokenizer.encode(text), eot]), context, batch_size, eot)


def score_with_progress(
    model: LanguageModel, tokenizer: Tokenizer, batches: Iterator[Batch], progress: LiveProgress
) -> Score:
    """Score a model on batches and show how far it is."""

    def counted() -> Iterator[Batch]:
        for number, batch in enumerate(batches, start=1):
            progress("evaluating", number, None, f"{number} batches")
            yield batch

    lengths = bytes_per_token(tokenizer.token_bytes, model.config.vocab_size)
    return evaluate(model, counted(), bytes_of_token=lengths)


def floors_of(dataset: Dataset, tokenizer: Tokenizer) -> dict[str, float]:
    """Bits per byte of the floors on the validation split of a data folder."""
    validation = list(documents(dataset.validation, tokenizer))
    return {
        "trigram": floors.trigram_bits_per_byte(documents(dataset.train, tokenizer), validation),
        "xz": floors.xz_bits_per_byte(validation),
    }


def print_score(what: str, score: Score, found: dict[str, float]) -> None:
    """The score as a small table."""
    print(f"{what}: {score.num_tokens:,} tokens, {score.num_bytes:,} bytes")
    print(f"  loss           {score.loss:.4f} nats per token")
    print(f"  perplexity     {score.perplexity:.2f} per token")
    print(f"  bits per byte  {score.bits_per_byte:.4f}")
    names = {"trigram": "byte trigram model of the training text", "xz": "xz -9 of the same text"}
    for name, value in found.items():
        print(f"  floor          {value:.4f}  {names[name]}")
