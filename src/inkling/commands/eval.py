"""`inkling eval`: how well a run predicts a text, beside honest floors."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from inkling.config import CommandSettings, Field, Positional
from inkling.errors import ConfigError


class Settings(CommandSettings):
    """How well a run predicts a text, and what it can do, beside honest floors.

    Without --task: loss, perplexity and bits per byte over a whole text, the run's validation split or any file, with a
    95 % interval over its documents. Bits per byte compare models with different tokenizers; loss and perplexity do
    not. The floors are a byte trigram model of the training text, and xz -9.

    With --task: a score with its interval, beside what random weights, constant answers and byte trigrams reach. Tasks:
    arithmetic, code_suite, code_suite_fair, copying, formats, gsm8k, humaneval, mbpp, multiple_choice, python, sorting.
    Code is run in a sandbox. Results are kept in the folder `evaluations` of a run directory.

    Example: inkling eval runs/notes
    Example: inkling eval runs/notes --text chapter.txt --json
    Example: inkling eval runs/code --task humaneval=HumanEval.jsonl.gz --samples 20 --temperature 0.8
    Example: inkling eval --task humaneval=HumanEval.jsonl.gz --completions answers.jsonl
    """

    run: Positional[Path | None] = None
    """Run directory, or any checkpoint folder with the same layout."""
    task: str | None = None
    """What to try: NAME, or NAME=FILE for a task whose questions are in a file."""
    task_data: Path | None = None
    """That file, for a task that names none."""
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
    chat: bool = False
    """Ask by the tokenizer's chat template: each question is what a user says. Not for tasks whose answers are code."""
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
    stride: int | None = Field(None, ge=1)
    """Let windows overlap: each predicts so many tokens, and sees the rest of its context before them. Default: no."""
    batch_size: int = Field(8, ge=1)
    """Windows at a time."""
    audit: bool = False
    """Also look for validation documents in the training text, and for training text that the run says by heart."""
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
    if settings.chat:
        raise ConfigError("--chat is for the questions of a --task: name one, or leave it out")
    if settings.run is None:
        raise ConfigError("give a run, such as: inkling eval runs/notes")
    from inkling.commands._text_scores import score_text

    score_text(settings, settings.run)
