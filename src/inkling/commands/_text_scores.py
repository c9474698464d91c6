"""How well a run predicts a text: overall, by source and length, beside floors; and what of it it knows by heart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inkling import checkpoint, files
from inkling.commands._hooks import documents
from inkling.data.leakage import LEAKED_SHARE, leaked_shares
from inkling.data.loader import Batch, sequential_windows, sliding_windows, windows_of_ids
from inkling.data.shards import Dataset, TokenSplit
from inkling.errors import ConfigError, DataError, reason_of
from inkling.eval import floors
from inkling.eval.memorisation import ANSWER_TOKENS, PROMPT_TOKENS, Memorised, memorised
from inkling.eval.perplexity import DocumentScores, bytes_per_token, evaluate_documents
from inkling.infer.completing import Completing
from inkling.infer.engine import Engine
from inkling.infer.sampling import SamplingParams
from inkling.models import LanguageModel
from inkling.progress import LiveProgress
from inkling.tokenizer import Tokenizer

if TYPE_CHECKING:
    from inkling.commands.eval import Settings

FILE = "evaluations/text.json"


@dataclass
class _Found:
    """All that is told."""

    what: str
    scores: DocumentScores
    sources: dict[str, DocumentScores] = field(default_factory=dict)
    floors: dict[str, float] = field(default_factory=dict)
    num_leaked: int | None = None
    by_heart: dict[str, Memorised] = field(default_factory=dict)


def score_text(settings: Settings, run: Path) -> None:
    """Score, print and keep."""
    model, tokenizer = checkpoint.load_model(run)
    longest = model.config.max_position_embeddings
    context = settings.context or longest
    if context > longest:
        raise ConfigError(f"--context is 2 to {longest:,}, which this model was made for; see inkling grow --context")
    if settings.stride is not None and not 0 < settings.stride < context:
        raise ConfigError(f"--stride is 1 to {context - 1:,}, less than the context")
    with LiveProgress(quiet=settings.as_json) as progress:
        if settings.text is not None:
            if settings.audit:
                raise ConfigError("--audit looks into the training text: leave out --text")
            text = read_text(settings.text)
            ids = np.array([tokenizer.eot_id, *tokenizer.encode(text), tokenizer.eot_id])
            found = _Found(str(settings.text), _score(model, tokenizer, _windows(ids, settings, context), progress))
            if settings.floors:
                found.floors = {"xz": floors.xz_bits_per_byte([text.encode()])}
        else:
            found = _score_split(settings, run, model, tokenizer, context, progress)
    content = as_content(str(run), found)
    is_run = (checkpoint.run_of(run) / checkpoint.RUN_FILE).is_file()
    if is_run and settings.text is None and settings.split == "validation":
        (run / FILE).parent.mkdir(exist_ok=True)
        files.write_json(run / FILE, content)
    if settings.as_json:
        print(json.dumps({name: value for name, value in content.items() if name != "documents"}))
    else:
        print_found(found)


def _score_split(
    settings: Settings, run: Path, model: LanguageModel, tokenizer: Tokenizer, context: int, progress: LiveProgress
) -> _Found:
    dataset = dataset_of_run(run, settings.data)
    dataset.check_tokenizer(tokenizer)
    split = dataset.filled(settings.split)

    scores = _score(model, tokenizer, _windows_of(split, settings, context, dataset.eot_id), progress)
    found = _Found(f"{settings.split} split of {dataset.folder}", scores)
    if len(dataset.parts) > 1:
        start = 0
        for part in dataset.parts:  # whose documents stand one after another in the split
            count = (part.validation if settings.split == "validation" else part.train).num_documents
            if count:
                found.sources[part.name] = scores.part(slice(start, start + count))
            start += count
    if settings.floors and settings.split == "validation":
        progress("floors", 0)
        found.floors = floors_of(dataset, tokenizer)
    if settings.audit:
        progress("looking for leaks", 0)
        shares = leaked_shares(dataset.train, dataset.validation)
        found.num_leaked = int((shares >= LEAKED_SHARE).sum())
        found.by_heart = _by_heart(model, tokenizer, dataset, settings.seed, progress)
    return found


def _by_heart(
    model: LanguageModel, tokenizer: Tokenizer, dataset: Dataset, seed: int, progress: LiveProgress
) -> dict[str, Memorised]:
    """Of the training text, and of the validation text, which nobody can know by heart, as the floor."""

    def go_on(prompts: Sequence[list[int]], count: int) -> list[list[int]]:
        engine = Engine(model, tokenizer)
        params = SamplingParams(max_tokens=count, temperature=0, ignore_eos=True)
        found = [Completing(model, tokenizer, [tokenizer.eot_id, *prompt], params) for prompt in prompts]
        for one in found:
            engine.add(one)
        while not engine.is_idle:
            engine.step()
        return [one.token_ids for one in found]

    room = model.config.max_position_embeddings - 1
    prompt_tokens = min(PROMPT_TOKENS, room // 2)
    answer_tokens = min(ANSWER_TOKENS, room - prompt_tokens)
    found = {}
    for name, split in (("training", dataset.train), ("validation", dataset.validation)):
        progress(f"by heart: {name}", 0)
        one = memorised(
            split, go_on, count=_SEQUENCES, seed=seed, prompt_tokens=prompt_tokens, answer_tokens=answer_tokens
        )
        if one is not None:
            found[name] = one
    return found


_SEQUENCES = 200


def _windows_of(split: TokenSplit, settings: Settings, context: int, eot_id: int) -> Iterator[Batch]:
    if settings.stride is None:
        return sequential_windows(split, context, settings.batch_size, eot_id)
    ids = np.concatenate([[eot_id], split.tokens(0, split.num_tokens)])
    return sliding_windows(ids, context, settings.stride, settings.batch_size, eot_id)


def _windows(ids: np.ndarray, settings: Settings, context: int) -> Iterator[Batch]:
    eot_id = int(ids[0])
    if settings.stride is None:
        return windows_of_ids(ids, context, settings.batch_size, eot_id)
    return sliding_windows(ids, context, settings.stride, settings.batch_size, eot_id)


def _score(
    model: LanguageModel, tokenizer: Tokenizer, batches: Iterator[Batch], progress: LiveProgress
) -> DocumentScores:
    def counted() -> Iterator[Batch]:
        for number, batch in enumerate(batches, start=1):
            progress("evaluating", number, None, f"{number} batches")
            yield batch

    lengths = bytes_per_token(tokenizer.token_bytes, model.config.vocab_size)
    return evaluate_documents(model, counted(), bytes_of_token=lengths, eot_id=tokenizer.eot_id)


def dataset_of_run(run: Path, data: Path | None) -> Dataset:
    """The data folder given, or the one that the run was trained on."""
    return Dataset.open(data if data is not None else Path(checkpoint.read_run(checkpoint.run_of(run)).data["folder"]))


def read_text(path: Path) -> str:
    """A text file. Raises DataError in one line when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} as text: {reason_of(error)}") from None
    if not text:
        raise DataError(f"{path} is empty")
    return text


def batches_of_text(text: str, tokenizer: Tokenizer, context: int, batch_size: int) -> Iterator[Batch]:
    """Batches over a text as one document, its end included."""
    eot = tokenizer.eot_id
    return windows_of_ids(np.array([eot, *tokenizer.encode(text), eot]), context, batch_size, eot)


def floors_of(dataset: Dataset, tokenizer: Tokenizer) -> dict[str, float]:
    """Bits per byte of the floors on the validation split of a data folder."""
    validation = list(documents(dataset.validation, tokenizer))
    return {
        "trigram": floors.trigram_bits_per_byte(documents(dataset.train, tokenizer), validation),
        "xz": floors.xz_bits_per_byte(validation),
    }


def as_content(run: str, found: _Found) -> dict[str, Any]:
    """As JSON."""
    scores = found.scores
    content: dict[str, Any] = {"run": run, "text": found.what, **scores.whole.as_dict()}
    content["interval"] = scores.bits_per_byte.as_dict()
    content["num_documents"] = len(scores.nats)
    content["by_length"] = {name: one.whole.as_dict() for name, one in scores.by_length().items()}
    content["documents"] = {"nats": scores.nats.tolist(), "num_bytes": scores.num_bytes.tolist()}
    if len(scores.nats) > _MAX_KEPT:
        del content["documents"]
    content["floors"] = found.floors
    if found.sources:
        content["sources"] = {
            name: {**one.whole.as_dict(), "interval": one.bits_per_byte.as_dict()}
            for name, one in found.sources.items()
        }
    if found.num_leaked is not None:
        content["num_leaked"] = found.num_leaked
        content["by_heart"] = {
            name: {"whole": one.whole.as_dict(), "mean_right": one.mean_right} for name, one in found.by_heart.items()
        }
    return content


_MAX_KEPT = 100_000


def print_found(found: _Found) -> None:
    """A small table."""
    score, count = found.scores.whole, len(found.scores.nats)
    print(f"{found.what}: {score.num_tokens:,} tokens, {score.num_bytes:,} bytes, {_documents(count)}")
    print(f"  loss           {score.loss:.4f} nats per token")
    print(f"  perplexity     {score.perplexity:.2f} per token")
    print(f"  bits per byte  {score.bits_per_byte:.4f}{found.scores.bits_per_byte.interval(4)}")
    names = {"trigram": "byte trigram model of the training text", "xz": "xz -9 of the same text"}
    for name, value in found.floors.items():
        print(f"  floor          {value:.4f}  {names[name]}")
    _print_parts("source", found.sources)
    lengths = found.scores.by_length()
    _print_parts("length of a document", lengths if len(lengths) > 1 else {})
    if found.num_leaked is not None:
        print(f"  leaks: {found.num_leaked:,} of {count:,} documents stand in the training text too")
    for name, known in found.by_heart.items():
        whole = known.whole
        print(
            f"  by heart: {whole.value:.1%} of {whole.count} sequences of the {name} text ({whole.low:.1%} to "
            f"{whole.high:.1%}), {known.mean_right:.1f} tokens in the mean"
        )


def _print_parts(by: str, parts: dict[str, DocumentScores]) -> None:
    """Bits per byte of each part of the text."""
    if not parts:
        return
    print(f"  bits per byte by {by}:")
    width = max(map(len, parts))
    for name, one in parts.items():
        rate = one.bits_per_byte
        size = f"{one.whole.num_bytes:,} bytes, {_documents(len(one.nats))}"
        print(f"    {name:<{width}}  {rate.value:.4f}{rate.interval(4)}  {size}")


def _documents(count: int) -> str:
    return f"{count:,} document{'' if count == 1 else 's'}"
