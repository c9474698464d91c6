"""`inkling plan`: what a run would be, what it would take, and what it would give. Nothing is written."""

from __future__ import annotations

import json
from typing import Any

from inkling import machine, models
from inkling.commands._hooks import exports_line
from inkling.commands.train import planned_run
from inkling.progress import LiveProgress
from inkling.train import pilot
from inkling.train.forecast import format_duration
from inkling.train.launch import PretrainingRun
from inkling.train.settings import TrainSettings


class Settings(TrainSettings):
    """Say what `inkling train` with the same options would do: nothing is trained or written.

    The size is the one that fits: into --memory, and with --time the one whose expected loss is lowest. Steps are timed
    on this machine, which takes some seconds. The loss to expect comes from short runs with the same settings, which
    take a minute or more and are kept; with --pilot 0, at once, from a law that was fitted to other texts.

    Example: inkling plan data/notes --time 30m
    Example: inkling plan data/notes --memory 8GB --json
    """


def run(settings: Settings) -> None:
    """Choose, time, print."""
    with LiveProgress(quiet=settings.as_json) as progress:
        budget = pilot.BY_DEFAULT if settings.pilot is None else pilot.Budget(settings.pilot)
        plan = summary(planned_run(settings, progress, budget))
    if settings.as_json:
        print(json.dumps(plan))
    else:
        print_plan(plan)


def summary(work: PretrainingRun) -> dict[str, Any]:
    """The plan, for programs."""
    choices = work.choices
    kept = [
        "num_parameters",
        "batch_size",
        "dropout",
        "optimizer",
        "precision",
        "num_threads",
        "micro_batch",
        "compile",
    ]
    return {
        "arch": work.settings.arch,
        **{name: choices[name] for name in kept},
        **choices["forecast"],
        "ngram_bits_per_byte": choices["ngram"],
        "exports": exports_line(models.read_config(choices["model_config"]), work.tokenizer),
        "program_bytes": machine.resident_bytes(),
        "reasons": [*choices["reasons"], choices["timing"]],
    }


def print_plan(plan: dict[str, Any]) -> None:
    """The plan, for people."""
    memory, program = plan["memory"], plan["program_bytes"]
    parts = ", ".join(f"{name} {memory[name] / 1e6:,.0f}" for name in memory if name != "total")
    rows = {
        "parameters": f"{plan['num_parameters']:,} ({plan['arch']})",
        "tokens": f"{plan['tokens']:,} in {plan['steps']:,} steps, {plan['passes']:.1f} passes over the text",
        "time": f"{format_duration(plan['seconds'])}, {plan['seconds_per_step'] * 1e3:,.0f} ms a step, "
        f"{plan['optimizer_share']:.0%} of it {plan['optimizer']}",
        "memory": f"{memory['total'] / 1e6:,.0f} MB ({parts}) beside {program / 1e6:,.0f} MB of program",
        "disk": f"{plan['disk_bytes'] / 1e6:,.0f} MB",
    }
    if plan["bits_per_byte"] is not None:
        rows["loss to expect"] = (
            f"{plan['bits_per_byte']:.3f} bits per byte ± {plan['error']:.0%} "
            f"(byte n-gram model: {plan['ngram_bits_per_byte']:.3f})"
        )
        each = [f"{bits:.3f} after {steps:,} steps" for steps, bits in plan["pilots"].items()]
        rows["pilots"] = ", ".join(each) or "none"
    rows["exports to"] = plan["exports"].removeprefix("exports to: ")
    print()
    for name, value in rows.items():
        print(f"{name:<15} {value}")
    print("\nNext:  the same options with `inkling train`")
