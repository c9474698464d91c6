"""Write docs/cli.md from the `--help` of every verb; with --check, fail when it is out of date."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

from inkling import cli
from inkling.config import load

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"


def help_of(verb: str) -> str:
    """What `inkling VERB --help` prints, 100 columns wide."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        load(cli.command_module(verb).Settings, ["--help"], prog=f"inkling {verb}")
    return printed.getvalue().rstrip()


def page() -> str:
    """The whole page."""
    os.environ["COLUMNS"] = "100"
    sections = [f"## inkling {verb}\n\n{line}\n\n```\n{help_of(verb)}\n```\n" for verb, line in cli.VERBS.items()]
    return (
        "# Command line\n\nWritten by `scripts/document_cli.py` from the `--help` of each verb.\n\n"
        "Settings come from defaults < `--preset` < `--config FILE.yaml` < `INKLING_SECTION__KEY` < the command "
        "line. Names may be written with `-` or `_`.\n\n" + "\n".join(sections)
    )


def main() -> int:
    """Write or check the page."""
    if "--check" in sys.argv:
        return int(PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
