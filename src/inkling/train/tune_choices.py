"""What a run of tuning does where its settings leave it open: derived from the rows, then timed on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from inkling import machine, models
from inkling.errors import ConfigError
from inkling.models import LanguageModel
from inkling.train.branching import can_branch
from inkling.train.loop import MicroBatch
from inkling.train.probe import Choices, Probe, peak_flops
from inkling.train.sequences import TokenBudget, Tokens, packing_pays
from inkling.train.sft import answer_loss
from inkling.train.stage import Setting, laid_out
from inkling.train.tune_settings import REINFORCE, TuneSettings
from inkling.train.world import ALONE, World

MICRO_BATCH_TOKENS = 8192
_REINFORCE_STEPS = 100
_MAX_RATE, _MIN_RATE = 1e-3, 1e-5
_LAYOUTS = {
    "share": "what answers to the same prompt begin with is computed once",
    "pack": "several sequences in a row: less filling",
    "pad": "a sequence in each row: of like lengths",
}


def default_rate(method: str, adapter: str, num_parameters: int) -> float:
    """Peak learning rate: small models want more, methods that push against a reference less, adapters ten times more.

    3e-4 for sft of 10 M parameters, with the inverse square root of their number, from 1e-5 to 1e-3.
    """
    rate = min(_MAX_RATE, max(_MIN_RATE, 3e-4 * (1e7 / num_parameters) ** 0.5))
    rate *= 1.0 if method in ("sft", "distill") else 0.3
    return float(f"{rate * (1.0 if adapter == 'none' else 10.0):.2g}")


def choose(
    settings: TuneSettings,
    model: LanguageModel,
    items: Sequence[Sequence[Tokens]],
    context: int,
    say: Callable[[str], None],
    world: World = ALONE,
) -> dict[str, Any]:
    """All choices, with the reason for each: what `run.json` keeps as `choices`.

    Args:
        model: As it is trained.
        items: The sequences of each.
        world: The processes that train together. Raises ConfigError where they cannot share a step evenly.
    """
    parameters = models.num_parameters(model.config)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    learns_from_rewards = settings.method in REINFORCE
    num_items = len(items)
    batch_size = settings.batch_size or max(1, min(32, num_items // 10))
    if batch_size % world.size:
        raise ConfigError(f"{batch_size} a step cannot be shared by {world.size} devices: give another --batch-size")
    steps = _steps(settings, num_items, batch_size)
    rate, why = _rate(settings, parameters)
    pack, share = settings.packing == "yes", settings.packing == "auto" and can_branch(items)
    if settings.packing == "auto" and not share and not learns_from_rewards:
        pack = packing_pays([one for item in items for one in item], batch_size)
    passes = f", {steps:,} steps: {steps * batch_size / num_items:.2g} passes" if steps else ""
    reasons = [
        f"{settings.method} of {settings.start_from}: {trained:,} of {parameters:,} parameters are trained",
        f"{batch_size} a step{passes}",
        f"peak learning rate {rate:.2g}{why}",
        _LAYOUTS["share" if share else "pack" if pack else "pad"],
    ]
    for number, reason in enumerate(reasons, start=1):
        say(f"  {number}. {reason}")
    step = Setting(
        batch_size, TokenBudget(0, lambda left: None), context, pack, settings.seed, model.device, share=share
    )
    timed = _timed(settings, model, items[: batch_size // world.size], step, world)
    say(f"  {len(reasons) + 1}. timed on this machine: {timed['timing']}")
    logs_each = learns_from_rewards and "log_every" not in settings.loop.model_fields_set
    return {
        "num_parameters": parameters,
        "batch_size": batch_size,
        "steps": steps,
        "lr": rate,
        "pack": pack,
        "share": share,
        "log_every": 1 if logs_each else settings.loop.log_every,
        "reasons": reasons,
        **timed,
    }


def _rate(settings: TuneSettings, num_parameters: int) -> tuple[float, str]:
    """The peak learning rate, and what there is to say of it."""
    if settings.optimizer == "muon":
        return settings.muon.lr, " of matrices, by muon"
    if settings.lr is not None:
        return settings.lr, ""
    return default_rate(settings.method, settings.adapter, num_parameters), ", by size and method"


def _steps(settings: TuneSettings, num_items: int, batch_size: int) -> int | None:
    """The length of the run; None where time limits it alone."""
    if settings.steps is not None:
        return settings.steps
    if settings.epochs is None and settings.time is not None:
        return None
    if settings.epochs is None and settings.method in REINFORCE:
        return _REINFORCE_STEPS
    epochs = settings.epochs or (3.0 if settings.method in ("sft", "distill") else 1.0)
    return max(1, round(epochs * num_items / batch_size))


def _timed(
    settings: TuneSettings,
    model: LanguageModel,
    items: Sequence[Sequence[Tokens]],
    setting: Setting,
    world: World,
) -> dict[str, Any]:
    """The fastest way to compute a step here, timed on some items of the run."""
    wanted, device = settings.machine, model.device
    longest = max(sum(len(one.ids) for one in item) for item in items)
    some = items[: max(1, min(len(items), MICRO_BATCH_TOKENS // longest))]
    batch = laid_out(some, setting)
    start = Choices(
        precision="fp32" if wanted.precision == "auto" else wanted.precision,
        num_threads=wanted.threads or max(1, (machine.usable_cores() - wanted.nice) // world.local_size),
        micro_batch=len(batch.input_ids),
        attention=wanted.attention,
    )
    free = {name for name in ("precision", "attention") if getattr(wanted, name) == "auto"}
    free |= {"num_threads"} if wanted.threads is None else set()
    timed = MicroBatch(batch.input_ids, batch.input_ids)
    chosen, reason = Probe(model, lambda model, _: answer_loss(model, batch), timed).choose(
        start, free=free, expected_tokens=0
    )
    micro_batch = (wanted.micro_batch or 0) * setting.context or MICRO_BATCH_TOKENS
    peak = peak_flops(device, chosen.precision, chosen.num_threads) * world.size
    return {**chosen.as_dict(), "micro_batch": micro_batch, "timing": reason, "peak_flops": peak}
