"""What training is given from rooms that it does not know: evaluation and writing."""

from __future__ import annotations

from collections.abc import Callable

from inkling.data.loader import Batch
from inkling.eval.perplexity import bytes_per_token, evaluate
from inkling.infer.generate import generate
from inkling.infer.sampling import SamplingParams
from inkling.models import LanguageModel
from inkling.tokenizer import Tokenizer


def evaluator(tokenizer: Tokenizer) -> Callable[[LanguageModel, list[Batch]], dict[str, float]]:
    """Scores a model on batches of this tokenizer's ids."""
    lengths = bytes_per_token(tokenizer.token_bytes, tokenizer.vocab_size)

    def score(model: LanguageModel, batches: list[Batch]) -> dict[str, float]:
        result = evaluate(model, batches, bytes_of_token=lengths)
        return {"val_loss": result.loss, "val_bits_per_byte": result.bits_per_byte}

    return score


def write_sample(model: LanguageModel, tokenizer: Tokenizer, prompt: str, num_tokens: int) -> str:
    """A text that the model writes: always from the same seed, so that samples of a run can be compared."""
    params = SamplingParams(temperature=0.8, max_tokens=num_tokens, seed=0, ignore_eos=True)
    was_training = model.training
    model.eval()
    try:
        return prompt + "".join(generate(model, tokenizer, prompt, params))
    finally:
        model.train(was_training)
