"""What training is given from rooms that it does not know: evaluation, floors and writing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from inkling.data.loader import Batch
from inkling.data.shards import Dataset, TokenSplit
from inkling.eval.floors import trigram_bits_per_byte
from inkling.eval.perplexity import bytes_per_token, evaluate
from inkling.infer.generate import generate
from inkling.infer.sampling import SamplingParams
from inkling.models import LanguageModel
from inkling.tokenizer import Tokenizer

FLOOR_TRAIN_BYTES, FLOOR_BYTES = 2 << 20, 1 << 18


def evaluator(tokenizer: Tokenizer) -> Callable[[LanguageModel, list[Batch]], dict[str, float]]:
    """Scores a model on batches of this tokenizer's ids."""
    lengths = bytes_per_token(tokenizer.token_bytes, tokenizer.vocab_size)

    def score(model: LanguageModel, batches: list[Batch]) -> dict[str, float]:
        result = evaluate(model, batches, bytes_of_token=lengths)
        return {"val_loss": result.loss, "val_bits_per_byte": result.bits_per_byte}

    return score


def documents(split: TokenSplit, tokenizer: Tokenizer) -> Iterator[bytes]:
    """The text of each document, back from its tokens; the end-of-text token stands for no bytes."""
    table = tokenizer.token_bytes
    start = 0
    for end in split.document_ends.tolist():
        yield b"".join([table[token] for token in split.tokens(start, end).tolist()])
        start = end


def trigram_floor(dataset: Dataset, tokenizer: Tokenizer) -> float:
    """Bits per byte of a byte trigram model, on so much of the text that it takes half a second."""
    train = _at_most(documents(dataset.train, tokenizer), FLOOR_TRAIN_BYTES)
    return trigram_bits_per_byte(train, list(_at_most(documents(dataset.validation, tokenizer), FLOOR_BYTES)))


def _at_most(texts: Iterator[bytes], num_bytes: int) -> Iterator[bytes]:
    for text in texts:
        yield text[:num_bytes]
        num_bytes -= len(text)
        if num_bytes <= 0:
            return


def write_sample(model: LanguageModel, tokenizer: Tokenizer, prompt: str, num_tokens: int) -> str:
    """A text that the model writes: always from the same seed, so that samples of a run can be compared."""
    params = SamplingParams(temperature=0.8, max_tokens=num_tokens, seed=0, ignore_eos=True)
    was_training = model.training
    model.eval()
    try:
        return prompt + "".join(generate(model, tokenizer, prompt, params))
    finally:
        model.train(was_training)
