"""Every error that Inkling raises on purpose, so that callers can catch one tree.

    InklingError                something the user can act on; the message says what happened and what to do next
    ├── ConfigError             a setting is unknown, of the wrong type, or contradicts another
    ├── DataError               the text, or a prepared data folder, cannot be used
    ├── TokenizerError          a tokenizer is broken, or is not the one the data or the model was made with
    ├── ModelError              an unknown architecture or size, or an impossible shape
    ├── CheckpointError         a run directory is missing, truncated or somebody else's
    ├── TrainingError           training cannot start or cannot go on
    ├── ExportError             a model cannot leave in the form asked for, or did not arrive as it left
    └── MissingExtraError       an optional package is needed and not installed

A message is one line, without a trailing full stop when it ends in a command.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InklingError(Exception):
    """Something the user can act on. The command line prints it as one line and exits with `exit_code`."""

    exit_code = 1


class ConfigError(InklingError):
    """A setting is unknown, of the wrong type, or contradicts another."""

    exit_code = 2


class DataError(InklingError):
    """The text, or a prepared data folder, cannot be used."""


class TokenizerError(InklingError):
    """A tokenizer is broken, or is not the one the data or the model was made with."""


class ModelError(InklingError):
    """An unknown architecture or size, or an impossible shape."""


class CheckpointError(InklingError):
    """A run directory is missing, truncated or somebody else's."""


class TrainingError(InklingError):
    """Training cannot start or cannot go on."""


class ExportError(InklingError):
    """A model cannot leave in the form asked for, or did not arrive as it left."""


class MissingExtraError(InklingError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}. Run: pip install 'inkling-lm[{extra}]'")
        self._arguments = (package, extra, purpose)

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        """Lets it come back from another process."""
        return MissingExtraError, self._arguments


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown `name`: the nearest known one, or all of them when none is near."""
    options = sorted(known)
    nearest = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    return f"; did you mean {nearest[0]!r}?" if nearest else f" (known: {', '.join(options)})"


def reason_of(error: Exception) -> str:
    """What an error says, for the end of a message that names the file already: without its number and its path."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
