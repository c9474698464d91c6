"""Runs as models of EleutherAI's lm-evaluation-harness, in process.

    lm_eval.simple_evaluate(model=harness_model("runs/notes"), tasks=["my_task"], task_manager=...)

`lm_eval` is imported here, so that this module is imported only by who has it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inkling import checkpoint
from inkling.commands._subjects import ModelSubject, subject_of_run
from inkling.errors import MissingExtraError
from inkling.eval.subject import Writing

try:
    from lm_eval.api.model import LM
except ImportError:
    raise MissingExtraError("lm_eval", "harness", "inkling.harness") from None

_MAX_TOKENS = 256


class HarnessModel(LM):  # type: ignore[misc]
    """A model that the harness asks.

    A text begins after an end-of-text token, as in training: what the harness' own `hf` model does with
    `add_bos_token=True`.
    """

    def __init__(self, subject: ModelSubject) -> None:
        super().__init__()
        self.subject = subject

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log probability of each continuation after its context, and whether it is the likeliest."""
        return [(one.nats, one.is_greedy) for one in self.subject.score([request.args for request in requests])]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log probability of each text, each of its tokens predicted once."""
        return self.subject.score_texts([request.args[0] for request in requests])

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What follows each context, up to what ends it."""
        groups: dict[str, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            groups[json.dumps(request.args[1], sort_keys=True)].append(number)
        found = [""] * len(requests)
        for text, numbers in groups.items():
            options = json.loads(text)
            until = options.get("until") or []
            samples = self.subject.write(
                [requests[number].args[0] for number in numbers],
                Writing(
                    max_tokens=int(options.get("max_gen_toks") or _MAX_TOKENS),
                    stop=[until] if isinstance(until, str) else [one for one in until if one],
                    temperature=float(options.get("temperature") or 0.0) if options.get("do_sample") else 0.0,
                ),
            )
            for number, given in zip(numbers, samples, strict=True):
                found[number] = given[0]
        return found


def harness_model(run: str | Path) -> HarnessModel:
    """A run for the harness. Raises CheckpointError when it cannot be loaded."""
    return HarnessModel(subject_of_run(Path(run), *checkpoint.load_model(Path(run))))
