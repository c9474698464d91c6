"""`inkling quantize`: a run with its weights in 8 or 4 bits, and what that costs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inkling import checkpoint, files
from inkling.checkpoint import RunRecord
from inkling.commands._text_scores import batches_of_text, dataset_of_run, read_text
from inkling.config import Bytes, CommandSettings, Field, Positional, SettingsConfigDict
from inkling.data.loader import Batch, sequential_windows
from inkling.errors import CheckpointError, ConfigError, DataError
from inkling.eval.perplexity import bytes_per_token, evaluate
from inkling.infer.generate import generate_batch
from inkling.infer.sampling import SamplingParams
from inkling.models import LanguageModel
from inkling.progress import LiveProgress
from inkling.quantize import Quantization, default_formats, quantize_model, weight_bytes
from inkling.quantize.budget import best_mix, damages, quantized_bytes
from inkling.quantize.gptq import quantize_blocks
from inkling.quantize.int4 import GROUP_SIZES
from inkling.tensor_files import checksum
from inkling.tokenizer import Tokenizer

CALIBRATION_WINDOWS, CALIBRATION_CONTEXT = 64, 256
DAMAGE_BATCHES = 2
SPEED_TOKENS, SPEED_REPEATS = 48, 3


class Settings(CommandSettings):
    """Pack the weights of a run in 8 or 4 bits. The result evaluates, chats and generates like any run.

    int8 rounds each row with a scale of its own. int4 gives each group of inputs a scale, and with GPTQ makes up for
    each rounding in the weights after it, by what calibration text says about how inputs go together; embedding and
    head take 8 bits. Size, speed, bits per byte and divergence are measured before and after, and printed.

    Example: inkling quantize runs/notes int8
    Example: inkling quantize runs/notes int4 --budget 60MB -o runs/notes-60mb
    """

    model_config = SettingsConfigDict(cli_shortcuts={"out": "o"})

    run: Positional[Path]
    """Run directory, or any checkpoint folder with the same layout."""
    bits: Positional[Literal["int8", "int4"]]
    """int8 or int4."""
    out: Path | None = None
    """New run directory. Default: beside the run, its name followed by the format."""
    method: Literal["auto", "rtn", "gptq", "range"] = "auto"
    """rtn rounds to nearest, with a search for the scales; gptq needs calibration text; range rounds without a search,
    as a run learned that was trained with --qat. auto: range for such a run, gptq for int4 where there is text, else
    rtn."""
    group_size: int = 32
    """Inputs that share a scale in int4: 32, 64, 128 or 256."""
    budget: Bytes | None = None
    """With int4: the largest size, such as 60MB. Matrices that suffer most from 4 bits get 8 as long as they fit."""
    calibration: Path | None = None
    """Text file for GPTQ and --budget. Default: the training split that the run was trained on."""
    text: Path | None = None
    """Text file to score before and after. Default: the validation split that the run was trained beside."""
    eval_tokens: int = Field(65_536, ge=256)
    """Tokens of it that are scored."""
    as_json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Measured:
    """What a model is worth.

    Attributes:
        bytes: Of its weights.
        tokens_per_s: Generating one stream.
        divergence: From the model before, nats per token, mean.
    """

    bytes: int
    tokens_per_s: float
    bits_per_byte: float | None
    divergence: float


def run(settings: Settings) -> None:
    """Measure, pack, measure, write."""
    check(settings)
    out = settings.out or settings.run.with_name(f"{settings.run.resolve().name}-{settings.bits}")
    if out.exists():
        raise CheckpointError(f"{out} is there already; choose another with -o")
    stored = checkpoint.open_model(settings.run)
    if stored.quantization is not None:
        raise CheckpointError(f"{settings.run} is quantized already: take the run that it was made from")
    model, tokenizer = checkpoint.load_model(settings.run)
    with LiveProgress(quiet=settings.as_json) as progress:
        scored = list(scored_batches(settings, model, tokenizer))
        calibration = list(calibration_batches(settings, model, tokenizer))
        method = method_of(settings, stored.record, bool(calibration))
        if (method == "gptq" or settings.budget) and not calibration:
            raise DataError("there is no calibration text: give a --calibration FILE")
        formats = default_formats(model, settings.bits, settings.group_size)
        if settings.budget and settings.budget < quantized_bytes(model, formats, settings.group_size):
            least = quantized_bytes(model, formats, settings.group_size)
            raise ConfigError(
                f"--budget is {settings.budget / 1e6:,.1f} MB; 4 bits everywhere take {least / 1e6:,.1f} MB"
            )
        progress.note("measuring the model as it is")
        reference = reference_of(model, scored)
        before = measure(model, tokenizer, scored, reference)
        if settings.budget:
            formats = best_formats(settings, model, formats, calibration, progress)
        quantization = Quantization(formats, settings.group_size)
        if method == "gptq":
            quantize_blocks(
                model, calibration, quantization, lambda done, total: progress("calibrating", done, total, "blocks")
            )
        left = {name: kind for name, kind in formats.items() if hasattr(model.get_submodule(name), "weight")}
        quantize_model(model, Quantization(left, settings.group_size), search=method != "range")
        progress.note("measuring the quantized model")
        after = measure(model, tokenizer, scored, reference)
    kinds = list(formats.values())
    result = {
        "run": str(out),
        "method": method,
        "group_size": settings.group_size,
        "matrices": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "before": asdict(before),
        "after": asdict(after),
    }
    write(settings.run, out, model, tokenizer, quantization, result)
    if settings.as_json:
        print(json.dumps(result))
    else:
        print_result(result, before, after)


def check(settings: Settings) -> None:
    """Raises ConfigError for options that go with the other format."""
    if settings.group_size not in GROUP_SIZES:
        raise ConfigError(f"group_size is one of {', '.join(map(str, GROUP_SIZES))}, not {settings.group_size}")
    if settings.bits == "int8" and (settings.budget or settings.method == "gptq"):
        raise ConfigError("--budget and gptq are for int4: int8 alone loses next to nothing")


def method_of(settings: Settings, record: RunRecord | None, has_text: bool) -> str:
    """How weights are rounded."""
    if settings.method != "auto":
        return settings.method
    if record is not None and record.settings.get("qat") == settings.bits:
        return "range"
    return "gptq" if settings.bits == "int4" and has_text else "rtn"


def best_formats(
    settings: Settings,
    model: LanguageModel,
    formats: dict[str, str],
    calibration: list[Tensor],
    progress: LiveProgress,
) -> dict[str, str]:
    """The mix of formats that fits into the budget, by what 4 bits do to each matrix."""
    assert settings.budget is not None
    names = [name for name, kind in formats.items() if kind == "int4"]
    progress.note("measuring what 4 bits do to each matrix")
    some = calibration[:DAMAGE_BATCHES]
    found = damages(
        model, some, names, settings.group_size, lambda done, total: progress("trying", done, total, "matrices")
    )
    return best_mix(model, formats, found, settings.group_size, settings.budget)


# ---------------------------------------------------------------- texts


def calibration_batches(settings: Settings, model: LanguageModel, tokenizer: Tokenizer) -> Iterator[Tensor]:
    """Token ids, (8, T) each; none where there is no text."""
    context = min(CALIBRATION_CONTEXT, model.config.max_position_embeddings)
    if settings.bits == "int8":
        return
    wanted = CALIBRATION_WINDOWS * context
    if settings.calibration is not None:
        ids = np.array([tokenizer.eot_id, *tokenizer.encode(read_text(settings.calibration))])[:wanted]
    else:
        try:
            train = dataset_of_run(settings.run, None).train
        except (CheckpointError, DataError, KeyError):
            return
        piece = max(context, wanted // 16)
        starts = np.linspace(0, max(0, train.num_tokens - piece), 16).astype(int)
        parts = [train.tokens(int(start), int(min(start + piece, train.num_tokens))) for start in starts]
        ids = np.concatenate(parts)[:wanted].astype(np.int64)
    rows = torch.from_numpy(ids[: len(ids) // context * context].astype(np.int64)).view(-1, context)
    yield from torch.split(rows, 8) if len(rows) else ()


def scored_batches(settings: Settings, model: LanguageModel, tokenizer: Tokenizer) -> Iterator[Batch]:
    """What is scored before and after; none where there is no text."""
    context = min(512, model.config.max_position_embeddings)
    if settings.text is not None:
        batches: Iterator[Batch] = batches_of_text(read_text(settings.text), tokenizer, context, 4)
    else:
        try:
            dataset = dataset_of_run(settings.run, None)
        except (CheckpointError, DataError, KeyError):
            return
        dataset.check_tokenizer(tokenizer)
        batches = sequential_windows(dataset.validation, context, 4, dataset.eot_id)
    seen = 0
    for batch in batches:
        yield batch
        seen += batch.input_ids.size
        if seen >= settings.eval_tokens:
            return


# ---------------------------------------------------------------- measuring


@torch.inference_mode()
def reference_of(model: LanguageModel, batches: list[Batch]) -> list[Tensor]:
    """Log probabilities of the model as it is, on the first tokens of the text, (T, V) each."""
    ids = [torch.from_numpy(batch.input_ids[:1]) for batch in batches[:8]]
    return [model(some)[0].log_softmax(-1) for some in ids]


@torch.inference_mode()
def measure(model: LanguageModel, tokenizer: Tokenizer, batches: list[Batch], reference: list[Tensor]) -> Measured:
    """Size, speed, score, and divergence from the reference."""
    divergences = []
    for batch, wanted in zip(batches[: len(reference)], reference, strict=True):
        found = model(torch.from_numpy(batch.input_ids[:1]))[0].log_softmax(-1)
        divergences.append(F.kl_div(found, wanted, log_target=True, reduction="sum") / len(wanted))
    lengths = bytes_per_token(tokenizer.token_bytes, tokenizer.vocab_size)
    score = evaluate(model, batches, bytes_of_token=lengths) if batches else None
    return Measured(
        bytes=weight_bytes(model),
        tokens_per_s=decoding_speed(model, tokenizer),
        bits_per_byte=None if score is None else score.bits_per_byte,
        divergence=float(torch.stack(divergences).mean()) if divergences else 0.0,
    )


def decoding_speed(model: LanguageModel, tokenizer: Tokenizer) -> float:
    """Tokens per second of one stream, the best of some tries."""
    num_tokens = min(SPEED_TOKENS, model.config.max_position_embeddings - 2)
    params = SamplingParams(max_tokens=num_tokens, seed=0, ignore_eos=True)
    best = float("inf")
    for _ in range(SPEED_REPEATS):
        started_s = time.perf_counter()
        generate_batch(model, tokenizer, [""], params)
        best = min(best, time.perf_counter() - started_s)
    return num_tokens / best


# ---------------------------------------------------------------- the new run


def write(
    source: Path,
    out: Path,
    model: LanguageModel,
    tokenizer: Tokenizer,
    quantization: Quantization,
    result: dict[str, Any],
) -> None:
    """A run directory like the source's, its weights packed."""
    with files.new_folder(out) as folder:
        checkpoint.save_model(folder, model, tokenizer, quantization=quantization)
        if (source / checkpoint.RUN_FILE).is_file():
            record = checkpoint.read_run(source)
            kept = {key: value for key, value in result.items() if key != "run"}
            results = {**record.results, "quantized": {"from": str(source.resolve()), **kept}}
            if result["after"]["bits_per_byte"] is not None:
                results.pop("validation", None)
            origin = {"quantized_from": str(source.resolve())}
            origin["quantized_from_sha256"] = checksum(source / checkpoint.WEIGHTS_FILE)
            changes = {"results": results, "sessions": [], "data": {**record.data, **origin}}
            checkpoint.write_run(folder, record.model_copy(update=changes))


def print_result(result: dict[str, Any], before: Measured, after: Measured) -> None:
    """Before and after, in a table."""
    kinds = ", ".join(f"{number} {kind}" for kind, number in result["matrices"].items())
    print(f"\n{result['run']}: {kinds} matrices, {result['method']}")
    print(f"  {'':<16}{'before':>12}{'after':>12}")
    print(f"  {'weights':<16}{before.bytes / 1e6:>9,.1f} MB{after.bytes / 1e6:>9,.1f} MB")
    ratio = after.tokens_per_s / before.tokens_per_s
    print(f"  {'one stream':<16}{before.tokens_per_s:>12,.0f}{after.tokens_per_s:>12,.0f}  tokens/s, {ratio:.2f} times")
    if before.bits_per_byte is not None and after.bits_per_byte is not None:
        change = after.bits_per_byte / before.bits_per_byte - 1
        print(f"  {'bits per byte':<16}{before.bits_per_byte:>12.4f}{after.bits_per_byte:>12.4f}  {change:+.2%}")
        print(f"  {'divergence':<16}{'':>12}{after.divergence:>12.5f}  nats per token")
    else:
        print("  not scored: give a --text FILE")
