"""What a reward model makes of answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from inkling import checkpoint
from inkling.errors import ConfigError
from inkling.tensor_files import read_tensors
from inkling.tokenizer.chat import dialogue

_AT_ONCE = 32


def reward_of_model(run: Path) -> Callable[[Sequence[str], Sequence[str]], list[float]]:
    """The function of a run that `inkling tune --method reward` made. Raises ConfigError for another one.

    Prompts are single messages of a user, as rewards are given them.
    """
    if not (run / checkpoint.REWARD_HEAD_FILE).is_file():
        raise ConfigError(f"{run} is no reward model: inkling tune RUN PREFERENCES --method reward makes one")
    model, tokenizer = checkpoint.load_model(run)
    weights, _ = read_tensors(run / checkpoint.REWARD_HEAD_FILE, verify=True)
    is_plain = checkpoint.read_run(run).settings.get("form") == "plain"

    def ids_of(prompt: str, answer: str) -> list[int]:
        if is_plain:
            return [*tokenizer.encode(prompt), *tokenizer.encode(answer), tokenizer.eot_id]
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        return dialogue(tokenizer, messages).ids

    @torch.inference_mode()
    def reward(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        rows = [[tokenizer.eot_id, *ids_of(*one)] for one in zip(prompts, completions, strict=True)]
        rows = [ids[-model.config.max_position_embeddings :] for ids in rows]
        found: list[float] = []
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            width = max(map(len, some))
            batch = torch.tensor([[*ids, *[tokenizer.eot_id] * (width - len(ids))] for ids in some])
            hidden = model.hidden(batch)  # (B, T, C); nothing sees the filling behind it
            last = hidden[torch.arange(len(some)), torch.tensor([len(ids) - 1 for ids in some])].float()
            found += (last @ weights["weight"].float().T + weights["bias"].float())[:, 0].tolist()
        return found

    return reward
