"""`inkling sample`: answers to prompts, graded: data to learn from, or a score."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from inkling import checkpoint, files
from inkling.commands._rollouts import check_rewards, reward_fn, rollout_fn
from inkling.config import CommandSettings, Field, Positional, SettingsConfigDict
from inkling.data.chats import as_question
from inkling.data.examples import distinct_prompts, rows_of
from inkling.errors import ConfigError
from inkling.eval.statistics import estimate
from inkling.progress import LiveProgress
from inkling.train.encode import Encoder, Eyes, Format
from inkling.train.rollouts import Prompt, Rollout
from inkling.train.sequences import Sampling

_PROMPTS_AT_ONCE = 32


class Settings(CommandSettings):
    """Let a run answer prompts, and grade the answers.

    Without --out it says how good they are. With it, it writes all answers with their rewards, the right ones (to learn
    by sft: rejection sampling), or pairs of a better and a worse answer to the same prompt (to learn by dpo).

    Example: inkling sample runs/code-sft tasks.jsonl --rewards unit_tests --temperature 0
    Example: inkling sample runs/code-sft tasks.jsonl --rewards unit_tests --samples 8 --write pairs -o pairs.jsonl
    """

    model_config = SettingsConfigDict(cli_shortcuts={"out": "o", "max_tokens": "n"})

    run: Positional[Path]
    """Run directory, or any checkpoint folder with the same layout."""
    prompts: Positional[Path]
    """Rows with prompts, and what their rewards need."""
    rewards: list[str] = Field([], min_length=1)
    """What answers are worth: by name (see docs/tuning.md) or FILE.py:FUNCTION, each with =WEIGHT behind."""
    samples: int = Field(1, ge=1)
    """Answers to each prompt."""
    temperature: float = Field(1.0, ge=0)
    """0 takes the likeliest token always."""
    top_k: int = Field(0, ge=0)
    """Sample from the likeliest tokens only; 0: from all."""
    max_tokens: int = Field(64, ge=1)
    """Of an answer."""
    form: Format = "chat"
    """chat: by the run's chat template. plain: the prompt as it is."""
    limit: int | None = Field(None, ge=1)
    """Prompts that are taken."""
    write: Literal["answers", "best", "pairs"] = "answers"
    """What --out gets. best: different answers with the highest reward of their prompt, where that is above the
    lowest of all. pairs: a better and a worse answer."""
    pairs: int = Field(2, ge=1)
    """Most pairs of a prompt."""
    seed: int = Field(0, ge=0)
    """Of the draws."""
    out: Path | None = None
    """JSON Lines file to write."""
    as_json: bool = False
    """Print one JSON object."""


def run(settings: Settings) -> None:
    """Answer, grade, write, and say how good the answers are."""
    if settings.out is not None and settings.out.exists():
        raise ConfigError(f"{settings.out} exists already; choose another -o")
    model, tokenizer = checkpoint.load_model(settings.run)
    if settings.form == "chat" and tokenizer.chat_template is None:
        raise ConfigError(f"{settings.run} has no chat template: tune it first, or take --form plain")
    folder = settings.prompts if settings.prompts.is_dir() else settings.prompts.parent
    eyes = Eyes.of(model, folder)
    encoder = Encoder(tokenizer, settings.form, model.config.max_position_embeddings, eyes=eyes)
    questions = [as_question(row) for row in distinct_prompts(rows_of(settings.prompts))][: settings.limit]
    prompts = [
        Prompt(encoder.prompt(one, settings.max_tokens), str(one.prompt[-1]["content"]), one.fields)
        for one in questions
    ]
    check_rewards(settings.rewards, prompts, [one.place for one in questions], accept=True)
    answer, worth = rollout_fn(tokenizer), reward_fn(settings.rewards)
    sampling = Sampling(settings.temperature, settings.top_k)
    graded: list[list[tuple[Rollout, float]]] = []
    with LiveProgress(quiet=settings.as_json) as progress:
        for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
            some = [one for one in prompts[start : start + _PROMPTS_AT_ONCE] for _ in range(settings.samples)]
            first = settings.seed * 1_000_003 + start * settings.samples
            seeds = [(first + number) % 2**31 for number in range(len(some))]
            pictures = [
                shown
                for one in questions[start : start + _PROMPTS_AT_ONCE]
                for shown in [encoder.pictures(one, one.prompt)] * settings.samples
            ]
            answers = answer(model, [one.ids for one in some], sampling, settings.max_tokens, seeds, pictures)
            parts = worth(some, [one.text for one in answers])
            rewards = [float(sum(values)) for values in zip(*parts.values(), strict=True)]
            pairs = list(zip(answers, rewards, strict=True))
            graded += [pairs[at : at + settings.samples] for at in range(0, len(pairs), settings.samples)]
            progress("answers", min(start + _PROMPTS_AT_ONCE, len(prompts)), len(prompts))
    both = zip(questions, graded, strict=True)
    rows = [row for one, group in both for row in _rows(settings, one.prompt, one.fields, group)]
    if settings.out is not None:
        files.write_text(settings.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    _say(settings, graded, len(rows))


def _rows(
    settings: Settings, prompt: Sequence[dict[str, Any]], fields: dict[str, Any], group: list[tuple[Rollout, float]]
) -> Iterator[dict[str, Any]]:
    asked = prompt[0]["content"] if len(prompt) == 1 else list(prompt)
    kept = {name: value for name, value in fields.items() if name not in ("completion", "response", "answers")}
    worth = {one.text: reward for one, reward in group if one.is_finished and one.text.strip()}
    ordered = sorted(worth, key=lambda text: -worth[text])
    match settings.write:
        case "answers":
            for one, reward in group:
                yield {"prompt": asked, "completion": one.text, "reward": reward, "finished": one.is_finished, **kept}
        case "best":
            best = worth[ordered[0]] if ordered else 0.0
            if best > 0:
                yield from ({"prompt": asked, "completion": text, **kept} for text in ordered if worth[text] == best)
        case "pairs":
            differing = [(a, b) for a in ordered for b in reversed(ordered) if worth[a] > worth[b]]
            taken = itertools.islice(differing, 0, None, max(1, len(differing) // settings.pairs))
            for chosen, rejected in itertools.islice(taken, settings.pairs):
                yield {"prompt": asked, "chosen": chosen, "rejected": rejected, **kept}


def _say(settings: Settings, graded: list[list[tuple[Rollout, float]]], num_rows: int) -> None:
    means = [sum(reward for _, reward in group) / len(group) for group in graded]
    best = [max(reward for _, reward in group) for group in graded]
    reward = estimate(means)
    truncated = sum(not one.is_finished for group in graded for one, _ in group) / (len(graded) * settings.samples)
    found = {
        "prompts": len(graded),
        "samples": settings.samples,
        "reward": reward.value,
        "interval": [reward.as_dict()["low"], reward.as_dict()["high"]],
        "best_of_samples": sum(best) / len(best),
        "truncated": truncated,
        "rows": num_rows if settings.out is not None else 0,
    }
    if settings.as_json:
        print(json.dumps(found))
        return
    print(
        f"{len(graded):,} prompts, {settings.samples} answers each: reward {reward.value:.3f}{reward.interval()}, "
        f"the best of each prompt {found['best_of_samples']:.3f}; {truncated:.1%} did not end in time"
    )
    if settings.out is not None:
        print(f"{settings.out}: {num_rows:,} rows ({settings.write})")
