"""The steps of a preparation on the executors of `datatrove`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from inkling.data.steps import Step
from inkling.errors import MissingExtraError


def run_with_datatrove(chain: Sequence[Step], logs: Path, num_workers: int, num_tasks: int) -> None:
    """Run steps on datatrove's local executor, in as many tasks as there are units.

    For Slurm or Ray give the same steps (`inkling.data.prep.reading_steps`) to its executors for these.
    """
    try:
        from datatrove.executor.local import LocalPipelineExecutor  # an extra
    except ImportError:
        raise MissingExtraError("datatrove", "datatrove", "--executor datatrove") from None
    executor = LocalPipelineExecutor(
        pipeline=list(chain),
        tasks=num_tasks,
        workers=num_workers,
        logging_dir=str(logs),
        skip_completed=False,  # what is done is known by the portions, which outlive a change of the number of tasks
    )
    executor.run()
