"""Write docs/cli.md from the settings of every verb; with --check, fail when it is out of date."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from inkling import cli

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
IN_EVERY_VERB = ("config", "debug")


def options(model: type[BaseModel], prefix: str = "", section: BaseModel | None = None) -> Iterator[str]:
    """A table row for each option, sections written with a dot.

    Args:
        section: Has the defaults, which may be other ones than those of its class.
    """
    for name, field in model.model_fields.items():
        value = field.default if section is None else getattr(section, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from options(field.annotation, f"{prefix}{name}.", value if isinstance(value, BaseModel) else None)
        elif name not in IN_EVERY_VERB:
            positional = any("CliPositionalArg" in repr(part) for part in field.metadata)
            shown = name.upper() if positional else f"--{prefix}{name}".replace("_", "-").replace("--as-json", "--json")
            default = "" if field.is_required() or value in (None, "", []) else f"`{value}`"
            description = " ".join((field.description or "").split()).replace("|", "\\|")
            yield f"| `{shown}` | {default} | {description}{choices(field.annotation)} |"


def choices(annotation: Any) -> str:
    """The values that an option may have, where they can be listed."""
    candidates = [annotation, *get_args(annotation)]
    found = [str(value) for one in candidates if get_origin(one) is Literal for value in get_args(one)]
    return f" One of {', '.join(f'`{value}`' for value in found)}." if found else ""


def section(verb: str) -> str:
    """The part of the page about one verb."""
    settings = cli.command_module(verb).Settings
    text = "\n".join(line.removeprefix("    ") for line in (settings.__doc__ or "").strip().splitlines())
    explanation, _, examples = text.partition("Example: ")
    shown = "\n".join(line.removeprefix("Example: ") for line in examples.strip().splitlines())
    table = "\n".join(["| option | default | what it is |", "| --- | --- | --- |", *options(settings)])
    return f"## inkling {verb}\n\n{explanation.strip()}\n\n```sh\n{shown}\n```\n\n{table}\n"


def page() -> str:
    """The whole page."""
    return (
        "# Command line\n\nWritten by `scripts/document_cli.py`. Settings come from defaults < `--preset` < "
        "`--config FILE.yaml` < `INKLING_SECTION__KEY` < the command line. Every verb also takes `--config FILE` and "
        "`--debug`, which shows the traceback of an error. Options that are on or off are turned off with `--no-…`.\n\n"
    ) + "\n".join(section(verb) for verb in cli.VERBS)


def main() -> int:
    """Write or check the page."""
    if "--check" in sys.argv:
        return int(PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
