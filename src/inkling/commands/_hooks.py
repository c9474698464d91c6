"""What training is given from rooms that it does not know: evaluation, floors and writing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from inkling import export
from inkling.data.loader import Batch
from inkling.data.shards import Dataset, TokenSplit
from inkling.errors import ConfigError
from inkling.eval.ngrams import ngram_bits_per_byte
from inkling.eval.perplexity import bytes_per_token, evaluate
from inkling.infer.generate import generate
from inkling.infer.sampling import SamplingParams
from inkling.models import LanguageModel, ModelConfig
from inkling.tokenizer import Tokenizer

DIFFICULTY_TRAIN_BYTES, DIFFICULTY_BYTES = 4 << 20, 1 << 18


def exports_line(config: ModelConfig, tokenizer: Tokenizer | None = None) -> str:
    """Where such a model can go, and why not elsewhere."""
    found = export.objections(config, tokenizer)
    fine = [name for name, reasons in found.items() if not reasons]
    others = [f"not {name} ({'; '.join(reasons)})" for name, reasons in found.items() if reasons]
    return f"exports to: {', '.join([*fine, *others]) if fine else 'nothing but this project'}"


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


def difficulty_of(dataset: Dataset, tokenizer: Tokenizer) -> float:
    """Bits per byte of a byte n-gram model, on so much of the text that it takes about two seconds."""
    train = b"".join(_some(dataset.train, tokenizer, DIFFICULTY_TRAIN_BYTES))
    return ngram_bits_per_byte([train], [b"".join(_some(dataset.validation, tokenizer, DIFFICULTY_BYTES))])


def _some(split: TokenSplit, tokenizer: Tokenizer, num_bytes: int) -> Iterator[bytes]:
    """Pieces of a split, evenly spread over it, with about so many bytes in all."""
    table = tokenizer.token_bytes
    piece = 4096
    starts = range(0, split.num_tokens, piece)
    share = min(1.0, num_bytes / max(1, split.num_bytes))
    for number, start in enumerate(starts):
        if int((number + 1) * share) > int(number * share):
            tokens = split.tokens(start, min(start + piece, split.num_tokens))
            yield b"".join([table[token] for token in tokens.tolist()])


def tasks_in_training(
    wanted: Sequence[str], data: Path | None, limit: int
) -> Callable[[LanguageModel, Tokenizer], dict[str, float]] | None:
    """What scores a model in some tasks while it is trained; None without any.

    Draws with keys of its own, so that training goes on as if it had not been there. Raises ConfigError and DataError
    for tasks and files that cannot be used, before the run.

    Args:
        wanted: NAME or NAME=FILE.
        data: File of those that name none.
    """
    if not wanted:
        return None
    from inkling.commands._subjects import ModelSubject
    from inkling.eval import tasks
    from inkling.eval.tasks import Options
    from inkling.sandbox import Sandbox

    paths = dict(map(tasks.named, wanted))
    if len(paths) < len(wanted):
        raise ConfigError(f"each task once, please: {', '.join(wanted)}")
    loaded = {name: tasks.load(name) for name in paths}
    options = {name: Options(data=path or data, limit=limit) for name, path in paths.items()}
    items = {name: task.read(options[name]) for name, task in loaded.items()}
    runs_code = any(task.RUNS_CODE for task in loaded.values())
    if runs_code:
        Sandbox(workers=1).close()  # says it now where there is none

    def score(model: LanguageModel, tokenizer: Tokenizer) -> dict[str, float]:
        was_training = model.training
        model.eval()
        found = {}
        with contextlib.ExitStack() as stack:
            stack.callback(model.train, was_training)
            box = stack.enter_context(Sandbox()) if runs_code else None
            for name, task in loaded.items():
                asked = replace(options[name], sandbox=box)
                result = tasks.evaluate(task, items[name], ModelSubject("", model, tokenizer), asked)
                found[f"{name}/{result.headline}"] = result.metrics[result.headline].value
        return found

    return score


def write_sample(model: LanguageModel, tokenizer: Tokenizer, prompt: str | list[int], num_tokens: int) -> str:
    """A text that the model writes: always from the same seed, so that samples of a run can be compared.

    What it writes after a text goes on; after the tokens of a conversation it ends where the answer does.
    """
    goes_on = isinstance(prompt, str)
    shown = prompt if isinstance(prompt, str) else tokenizer.decode(prompt, skip_special=False)
    params = SamplingParams(temperature=0.8, max_tokens=num_tokens, seed=0, ignore_eos=goes_on)
    was_training = model.training
    model.eval()
    try:
        return shown + "".join(generate(model, tokenizer, prompt, params))
    finally:
        model.train(was_training)
