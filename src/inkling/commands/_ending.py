"""How a command that trained ends: what came out, for people or programs, and the exit status."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inkling.checkpoint import RunRecord


def end(path: Path, record: RunRecord, *, verb: str, as_json: bool, tell: Callable[[Path, RunRecord], None]) -> int:
    """Say what became of a run; the exit status, 130 after Ctrl-C.

    Args:
        tell: Says to people how a finished run went.
    """
    if as_json:
        told = {"run": str(path), "status": record.status, "params": record.num_parameters, **record.results}
        print(json.dumps(told))
    else:
        results = record.results
        print(f"\n{path}: {record.status} at step {results['steps']}, {results['train_seconds']:.0f} s of training")
        if record.status == "interrupted":
            print(f"Go on with it:  inkling {verb} --resume --out {path}")
        else:
            tell(path, record)
    return 128 + signal.SIGINT if record.status == "interrupted" else 0


def predicted_beside_actual(forecast: dict[str, Any], results: dict[str, Any]) -> str:
    """How well the plan told time and loss, in a line."""
    seconds = results["train_seconds"]
    line = f"planned {forecast['seconds']:.0f} s, took {seconds:.0f} s ({seconds / forecast['seconds'] - 1:+.0%})"
    if forecast.get("bits_per_byte") is not None:
        bits = results["validation"]["val_bits_per_byte"]
        difference = bits / forecast["bits_per_byte"] - 1
        line += f"; expected {forecast['bits_per_byte']:.3f} bits per byte, reached {bits:.3f} ({difference:+.1%})"
    return line
