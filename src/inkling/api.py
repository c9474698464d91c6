"""From Python: `inkling.load("runs/notes").generate(["Once upon a time"])`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from inkling import checkpoint
from inkling.infer.completing import Completing
from inkling.infer.engine import Engine, EngineLimits
from inkling.infer.generate import Completion, generate
from inkling.infer.sampling import SamplingParams
from inkling.models import LanguageModel
from inkling.tokenizer import Tokenizer


def load(run: str | Path, *, device: str = "cpu") -> Model:
    """The model of a run, of an import, or of any checkpoint folder with the same layout.

    Raises CheckpointError when it cannot be loaded.
    """
    return Model(*checkpoint.load_model(Path(run), device=device))


class Model:
    """A model and its tokenizer, ready to write.

    Attributes:
        model: The network, a `torch.nn.Module`.
        tokenizer: Text ↔ token ids.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._engine: Engine | None = None

    def generate(self, prompts: Sequence[str], **settings: Any) -> list[Completion]:
        """One completion for each prompt, computed together; each is what it would be alone.

        Args:
            settings: Of `SamplingParams`: temperature, top_k, top_p, max_tokens, stop, seed, …

        Raises:
            ModelError: A prompt leaves no room in the context.
            pydantic.ValidationError: A setting is unknown or out of range.
        """
        params = SamplingParams(**settings)
        if self._engine is None:
            blocks = 2 * EngineLimits().max_sequences * (self.model.config.max_position_embeddings // 64 + 1)
            self._engine = Engine(self.model, self.tokenizer, EngineLimits(num_blocks=blocks))
        sequences = [
            Completing(self.model, self.tokenizer, [self.tokenizer.eot_id, *self.tokenizer.encode(prompt)], params)
            for prompt in prompts
        ]
        for sequence in sequences:
            self._engine.add(sequence)
        while not self._engine.is_idle:
            self._engine.step()
        return [
            Completion(
                text=one.text,
                token_ids=one.token_ids,
                num_prompt_tokens=len(one.prompt_ids),
                seed=one.seed,
                stop_reason="stop" if one.finish_reason == "stop" else "length",
            )
            for one in sequences
        ]

    def stream(self, prompt: str, **settings: Any) -> Iterator[str]:
        """What the model writes after a prompt, piece by piece. Arguments and errors as `generate`."""
        return generate(self.model, self.tokenizer, prompt, SamplingParams(**settings))
