"""What a run does where its settings leave it open: derived from the text, then timed on this machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from inkling import checkpoint, machine, models, optim
from inkling.config import Section
from inkling.data.loader import PackedWindows
from inkling.data.shards import Dataset
from inkling.errors import ConfigError, ModelError
from inkling.optim import muon
from inkling.optim._groups import parameter_groups
from inkling.quantize.qat import round_weights
from inkling.train import defaults, growth, scaling
from inkling.train.memory import free_bytes, memory_of
from inkling.train.precision import PrecisionName
from inkling.train.pretrain import next_token_loss, to_micro_batch
from inkling.train.probe import Choices, Probe, peak_flops
from inkling.train.probe_cache import ProbeCache
from inkling.train.recompute import recompute_blocks
from inkling.train.settings import TrainSettings
from inkling.train.world import ALONE, World

_QUIET_CORES = 0.2
"""Timings are kept when other programs used less than this meanwhile."""
SayFn = Callable[[str], None]


def choose(
    settings: TrainSettings, dataset: Dataset, device: torch.device, say: SayFn, ngram: float | None = None
) -> dict[str, Any]:
    """What does not need timing, with the reason for each choice: what `run.json` keeps as `choices`.

    Args:
        ngram: Bits per byte of a byte n-gram model on the validation text, from which a loss can be expected.
    """
    config, size_reason, tokens_per_s = choose_model(settings, dataset, device, ngram)
    num_parameters = models.num_parameters(config)
    matrices = block_matrices(config)
    horizon = defaults.choose_horizon(
        num_parameters=num_parameters,
        num_tokens=dataset.train.num_tokens,
        context=settings.context,
        batch_size=settings.batch_size,
        steps=settings.steps,
        time_s=settings.time,
        tokens_per_s=tokens_per_s,
        muon_share=lambda tokens: muon.flops_share(matrices, tokens),
        mean_share=growth.mean_share(settings.growth),
    )
    regime = defaults.choose_regime(
        horizon.passes,
        dropout=settings.model.dropout,
        average_decay=settings.average.decay,
        patience=settings.loop.patience,
    )
    share = muon.flops_share(matrices, horizon.batch_size * settings.context)
    optimizer, optimizer_reason = defaults.choose_optimizer(settings.optimizer, share)
    reasons = [
        f"{size_reason}: {num_parameters:,} parameters ({settings.arch}, {dataset.vocab_size:,} tokens)",
        *horizon.reasons,
        *regime.reasons,
        optimizer_reason,
    ]
    weight_decay = None
    if optimizer == "muon" and settings.start_from is None:  # learnt weights would be lost
        per_token = num_parameters / dataset.train.num_tokens
        asked = settings.muon.weight_decay
        weight_decay, decay_reason = defaults.choose_weight_decay(horizon.passes, per_token, asked)
        reasons.append(decay_reason)
    for number, reason in enumerate(reasons, start=1):
        say(f"  {number}. {reason}")
    return {
        "model_config": config.to_dict(),
        "num_parameters": num_parameters,
        "dropout": regime.dropout,
        "average_decay": regime.average_decay,
        "patience": regime.patience,
        "batch_size": horizon.batch_size,
        "steps": horizon.steps,
        "expected_tokens": horizon.tokens,
        "optimizer": optimizer,
        "weight_decay": weight_decay,
        "reasons": reasons,
    }


def choose_model(
    settings: TrainSettings, dataset: Dataset, device: torch.device, ngram: float | None
) -> tuple[models.ModelConfig, str, float | None]:
    """The shape of the model, why that size, and its tokens per second where time limits the run.

    Raises ConfigError when a size that the user asked for does not fit into memory, or none does.
    """
    sizes = list(models.load(settings.arch).SIZES)
    if not sizes:
        raise ConfigError(f"{settings.arch} is made from a trained run: inkling grow RUN --pictures 32 -o NEW")
    limit = settings.memory or free_bytes(device)
    if settings.start_from is not None:
        source = checkpoint.open_model(settings.start_from)
        dataset.check_tokenizer(source.tokenizer)
        speed = plain_speed(settings, source.config, dataset, device) if settings.time is not None else None
        return source.config, f"weights and shape of {settings.start_from}", speed
    size, reason = defaults.choose_size(settings.size, sizes, dataset.train.num_tokens)
    if settings.size != "auto":
        config = config_of(settings, dataset, size)
        need = _least_memory(settings, config)
        if need > limit:
            raise ConfigError(
                f"size {size} needs {need / 1e9:.1f} GB of memory, {limit / 1e9:.1f} GB are free: take a smaller "
                "--size, or add --machine.recompute"
            )
        return config, reason, plain_speed(settings, config, dataset, device) if settings.time is not None else None
    fitting = [name for name in sizes if _fits(settings, dataset, name, limit)]
    if not fitting:
        config_of(settings, dataset, size)  # says what is impossible, if that is why
        raise ConfigError(f"no size of {settings.arch} fits into {limit / 1e9:.2f} GB of memory")
    if size not in fitting:
        reason = f"size {fitting[-1]}: {size} would not fit into {limit / 1e9:.1f} GB"
        size = fitting[-1]
    if settings.time is None:
        return config_of(settings, dataset, size), reason, None
    return _best_for_time(settings, dataset, device, fitting, size, reason, ngram)


def _best_for_time(
    settings: TrainSettings,
    dataset: Dataset,
    device: torch.device,
    sizes: list[str],
    size: str,
    reason: str,
    ngram: float | None,
) -> tuple[models.ModelConfig, str, float]:
    """The size with the lowest expected loss after `settings.time`: a larger one sees less text.

    Speeds of other sizes follow from the one that is timed, by operations per token; where the choice moves, that size
    is timed too.
    """
    assert settings.time is not None
    configs = {name: config_of(settings, dataset, name) for name in sizes}
    costs = {name: models.cost(models.without_memory(config)) for name, config in configs.items()}
    flops = {name: cost.training_flops for name, cost in costs.items()}
    text = dataset.train
    timed: dict[str, float] = {}
    while size not in timed:
        timed[size] = plain_speed(settings, configs[size], dataset, device)
        if ngram is None:
            break
        losses = {}
        for name, cost in costs.items():
            nearest = min(timed, key=lambda other: abs(math.log(flops[other] / flops[name])))
            losses[name] = scaling.expected(
                block_parameters=cost.block_parameters,
                tokens=settings.time * timed[nearest] * flops[nearest] / flops[name],
                text_tokens=text.num_tokens,
                bytes_per_token=text.num_bytes / text.num_tokens,
                ngram=ngram,
            ).bits_per_byte
        size = min(losses, key=losses.__getitem__)
        near = sorted(losses, key=losses.__getitem__)[:3]
        each = ", ".join(f"{name} {losses[name]:.2f}" for name in sizes if name in near)
        reason = f"size {size}: the lowest loss to expect after {settings.time:.0f} s (bits per byte: {each})"
    return configs[size], reason, timed[size]


def config_of(settings: TrainSettings, dataset: Dataset, size: str) -> models.ModelConfig:
    """The named size with the changes of the settings, for the vocabulary of the data.

    Raises ConfigError for a change that the architecture does not know.
    """
    architecture = models.load(settings.arch)
    changes = settings.model.model_dump(exclude={"dropout"}, exclude_none=True)
    for name in set(changes) - set(architecture.Config.model_fields):
        raise ConfigError(f"{settings.arch} has no {name}: leave out --model.{name.replace('_', '-')}")
    return architecture.Config.from_dict(
        {
            **architecture.SIZES[size],
            **changes,
            "model_type": settings.arch,
            "vocab_size": -(-dataset.vocab_size // settings.vocab_multiple) * settings.vocab_multiple,
            "max_position_embeddings": settings.context,
        }
    )


def _fits(settings: TrainSettings, dataset: Dataset, size: str, limit: int) -> bool:
    """Whether a size can be trained within `limit` bytes; one that the settings' changes make impossible cannot."""
    try:
        return _least_memory(settings, config_of(settings, dataset, size)) <= limit
    except ModelError:
        return False


def _least_memory(settings: TrainSettings, config: models.ModelConfig) -> int:
    """What training takes with micro-batches of one sequence."""
    optimizer = "adamw" if settings.optimizer == "adamw" else "muon"
    recompute = settings.machine.recompute
    return memory_of(config, tokens=settings.context, optimizer=optimizer, recompute=recompute).total


def build_model(settings: TrainSettings, choices: dict[str, Any], device: torch.device) -> models.LanguageModel:
    """The model with fresh weights, on the device."""
    architecture = models.load(settings.arch)
    config = architecture.Config.from_dict(choices["model_config"])
    model = architecture.Model(config, dropout=choices["dropout"])
    model.init_weights(torch.Generator().manual_seed(settings.seed))
    model.to(device)
    if settings.qat is not None:
        round_weights(model, settings.qat)
    return recompute_blocks(model) if settings.machine.recompute else model


def training_windows(settings: TrainSettings, dataset: Dataset, batch_size: int) -> PackedWindows:
    """Every window of the run, in its order."""
    return PackedWindows(
        [(part.train, part.share) for part in dataset.parts],
        context=settings.context,
        batch_size=batch_size,
        seed=settings.seed,
        eot_id=dataset.eot_id,
        stride=settings.stride,
    )


def build_optimizer(
    settings: TrainSettings, choices: dict[str, Any], model: models.LanguageModel
) -> torch.optim.Optimizer:
    """The chosen optimizer, what its settings leave open filled in."""
    config: Section = getattr(settings, choices["optimizer"])
    if isinstance(config, muon.Config):
        config = config.at_precision(choices["precision"])
    if choices.get("weight_decay") is not None:
        config = config.model_copy(update={"weight_decay": choices["weight_decay"]})
    optimizer: torch.optim.Optimizer = optim.load(choices["optimizer"]).build(parameter_groups(model), config)
    return optimizer


def plain_speed(settings: TrainSettings, config: models.ModelConfig, dataset: Dataset, device: torch.device) -> float:
    """Tokens per second of forward and backward on a few sequences, before anything is chosen."""
    model = models.load(settings.arch).Model(config).to(device)
    count = max(1, min(8, dataset.train.num_tokens // settings.context))
    windows = PackedWindows(
        [(dataset.train, 1.0)], context=settings.context, batch_size=count, seed=0, eot_id=dataset.eot_id
    )
    probe = Probe(model, next_token_loss, to_micro_batch(windows.batch(0), slice(None), device))
    start = Choices("fp32", settings.machine.threads or machine.usable_cores(), count)
    free = {"precision", "num_threads"} if device.type == "cpu" else {"precision"}
    return probe.choose(start, free=free, expected_tokens=0)[0].tokens_per_s


def time_choices(
    settings: TrainSettings,
    choices: dict[str, Any],
    model: models.LanguageModel,
    windows: PackedWindows,
    say: SayFn,
    world: World = ALONE,
) -> dict[str, Any]:
    """The fastest way to compute a step here: timed on its own sequences, or found in the cache of earlier timings.

    Raises ConfigError when batch, micro-batch and number of processes do not fit together.
    """
    wanted, rows = settings.machine, choices["batch_size"] // world.size
    device = model.device
    free = {name for name in ("precision", "attention", "compile") if getattr(wanted, name) == "auto"}
    free |= {"num_threads"} if wanted.threads is None else set()
    free |= {"micro_batch"} if wanted.micro_batch is None else set()
    precision: PrecisionName = "fp32" if wanted.precision == "auto" else wanted.precision
    start = Choices(
        precision=precision,
        num_threads=wanted.threads or max(1, (machine.usable_cores() - wanted.nice) // world.local_size),
        micro_batch=wanted.micro_batch or _largest_micro_batch(rows, settings.context, model.config.vocab_size),
        attention=wanted.attention,
        compile=wanted.compile == "yes",
    )
    if choices["batch_size"] % world.size or rows % start.micro_batch:
        raise ConfigError(
            f"micro-batches of {start.micro_batch} on {world.size} devices must divide the batch of "
            f"{choices['batch_size']} sequences"
        )
    cache = ProbeCache(
        model=choices["model_config"],
        dropout=choices["dropout"] > 0,
        recompute=wanted.recompute,
        device=str(device),
        rows=rows,
        start=start.as_dict(),
        free=sorted(free),
        long=choices["expected_tokens"] > 3e7,
    )
    found = None if wanted.probe == "anew" else cache.read()
    if found is not None:
        chosen, reason = found
        reason += ", as timed here before (--machine.probe anew times again)"
    else:
        batch = windows.batch(0, rank=world.rank, world_size=world.size)
        probe = Probe(model.train(), next_token_loss, to_micro_batch(batch, slice(None), device))
        others = machine.others_busy()
        chosen, reason = probe.choose(start, free=free, expected_tokens=choices["expected_tokens"])
        if (busy := others()) < _QUIET_CORES:
            cache.write(chosen, reason)
        else:
            reason += f" (while other programs kept {busy:.1f} cores busy, so it is not kept)"
    say(f"  {len(choices['reasons']) + 1}. timed on this machine: {reason}")
    peak = peak_flops(device, chosen.precision, chosen.num_threads)
    return {**chosen.as_dict(), "timing": reason, "peak_flops": peak * world.size}


def _largest_micro_batch(rows: int, context: int, vocab_size: int) -> int:
    """The largest power-of-two part of the rows whose logits stay below 512 MB."""
    size = rows
    while size % 2 == 0 and size * context * vocab_size * 4 > 512e6:
        size //= 2
    return size


def block_matrices(config: models.ModelConfig) -> list[tuple[int, ...]]:
    """Shapes of the matrices that Muon would update. Allocates nothing."""
    model = models.without_memory(config)
    return [tuple(p.shape) for group in parameter_groups(model) if group.role == "matrices" for p in group.parameters]
