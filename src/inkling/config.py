"""Strict settings: defaults < preset < `--config file.yaml` < `INKLING_SECTION__KEY` < command line.

A command declares its settings once, as a `CommandSettings` class whose attribute docstrings become the help text:

    class Settings(CommandSettings):
        \"\"\"Train a model.

        Example: inkling train data/notes --steps 500
        \"\"\"
        model_config = SettingsConfigDict(cli_shortcuts={"out": "o"})      # -o as well as --out
        data: Positional[Path]
        \"\"\"Prepared data folder.\"\"\"
        out: Path = Path("runs/notes")
        \"\"\"Run directory to write.\"\"\"
        optim: OptimSection = OptimSection()                               # --optim.lr 0.01
        as_json: bool = False                                              # --json (pydantic owns the name `json`)

An unknown key, a wrong type or a bad choice is an error that names the key and the nearest right one, and all such
errors are reported at once.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from pydantic_settings import CliPositionalArg as Positional

from inkling.errors import ConfigError, did_you_mean, reason_of

__all__ = ["Bytes", "CommandSettings", "Duration", "Field", "Positional", "Section", "SettingsConfigDict", "load"]

ENV_PREFIX = "INKLING_"
_ENV_FOR_TESTS = "INKLING_TEST_"


def parse_duration(value: object) -> object:
    """Turn "90s", "10m", "1.5h" or "2d" into seconds; numbers are seconds already."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([smhd]?)\s*", value)
    if match is None:
        raise ValueError(f"{value!r} is not a time such as 90s, 10m or 1.5h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
"""Seconds, written as "90s", "10m", "1.5h" or a number of seconds."""


def parse_bytes(value: object) -> object:
    """Turn "800MB", "8GB" or "1.5TB" into bytes; numbers are bytes already."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?)i?B?\s*", value, re.IGNORECASE)
    if match is None:
        raise ValueError(f"{value!r} is not an amount of memory such as 800MB or 8GB")
    return round(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))


Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
"""Bytes, written as "800MB", "8GB" or a number of bytes; a thousand to a step."""


class Section(BaseModel):
    """A group of settings, next to what it builds. Unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )


class CommandSettings(BaseSettings):
    """The settings of one command. See the module's docstring."""

    model_config = SettingsConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_implicit_flags=True,
        nested_model_default_partial_update=True,
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Named groups of settings that `--preset` puts under the file, the environment and the command line."""

    config: Path | None = None
    """YAML file of settings, with the same keys as on the command line."""
    debug: bool = False
    """Show the traceback of an error."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Python keyword arguments and nothing else; `load` adds the other sources."""
        return (init_settings,)


SettingsT = TypeVar("SettingsT", bound=CommandSettings)


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting, so that its complaint joins the others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}. Run: {self.prog} --help")


def load(settings_cls: type[SettingsT], arguments: Sequence[str], *, prog: str) -> SettingsT:
    """Merge every source and validate once. `--help` prints and exits with 0.

    Raises ConfigError with all problems of all sources in one message.
    """
    arguments = [_with_underscores(argument) for argument in arguments]
    cli, unknown = _parse_command_line(settings_cls, arguments, prog)
    env = EnvSettingsSource(settings_cls)
    sources: list[PydanticBaseSettingsSource] = [cli, env]
    file_path = cli().get("config") or env().get("config")
    if file_path is not None:
        sources.append(InitSettingsSource(settings_cls, init_kwargs=_read_yaml(Path(file_path))))
    preset = next((source()["preset"] for source in sources if "preset" in source()), None)
    if preset is not None and settings_cls.presets:
        if preset not in settings_cls.presets:
            raise ConfigError(f"unknown preset {preset!r}{did_you_mean(preset, settings_cls.presets)}")
        sources.append(InitSettingsSource(settings_cls, init_kwargs=dict(settings_cls.presets[preset])))

    known = [*_keys(settings_cls)]
    problems = [f"{option}: there is no such option{did_you_mean(option.lstrip('-'), known)}" for option in unknown]
    problems += [
        f"{name}: no command has such a setting{did_you_mean(_env_key(name), known)}"
        for name in _unknown_environment(settings_cls)
    ]
    merged = _merge(source() for source in reversed(sources))
    try:
        settings = settings_cls(**merged)
    except ValidationError as error:
        problems += [_describe(detail, known) for detail in error.errors()]
        raise _config_error(problems) from None
    if problems:
        raise _config_error(problems)
    return settings


def _parse_command_line(
    settings_cls: type[SettingsT], arguments: list[str], prog: str
) -> tuple[CliSettingsSource[Any], list[str]]:
    """The command line as a settings source, and the options in it that do not exist."""
    parser = _Parser(
        prog=prog,
        description=_dedent(settings_cls.__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    unknown: list[str] = []

    def parse(root: argparse.ArgumentParser, args: list[str], namespace: argparse.Namespace | None = None) -> Any:
        parsed, rest = argparse.ArgumentParser.parse_known_args(root, args, namespace)
        unknown.extend(option.split("=", 1)[0] for option in rest if option.startswith("-"))
        stray = [value for value in rest if not value.startswith("-")]
        if stray and not unknown:
            root.error(f"unexpected argument {stray[0]!r}")
        return parsed

    cli: CliSettingsSource[Any] = CliSettingsSource(
        settings_cls,
        root_parser=parser,
        parse_args_method=parse,
        cli_shortcuts={**(settings_cls.model_config.get("cli_shortcuts") or {}), "as_json": "json"},
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    try:
        return cli(args=arguments), unknown
    except SettingsError as error:
        raise ConfigError(f"{error}. Run: {prog} --help") from None


def _with_underscores(argument: str) -> str:
    """`--weight-decay=0.1` → `--weight_decay=0.1`; a leading `--no-` keeps its dash."""
    if not re.match(r"--[A-Za-z]", argument):
        return argument
    name, equals, value = argument.partition("=")
    prefix = "--no-" if name.startswith("--no-") else "--"
    return prefix + name[len(prefix) :].replace("-", "_") + equals + value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the settings file {path}: {reason_of(error)}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold keys and values, such as `steps: 500`")
    return content


def _merge(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge nested mappings; later layers win."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
                merged[key] = _merge([merged[key], value])
            else:
                merged[key] = value
    return merged


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of a settings class, sections written with a dot."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def _env_key(variable: str) -> str:
    return variable.removeprefix(ENV_PREFIX).lower().replace("__", ".")


def _unknown_environment(settings_cls: type[CommandSettings]) -> list[str]:
    """INKLING_ variables that neither this command nor any other understands."""
    variables = [name for name in os.environ if name.startswith(ENV_PREFIX) and not name.startswith(_ENV_FOR_TESTS)]
    roots = {_env_key(name).split(".")[0]: name for name in variables}
    unknown = {root: name for root, name in roots.items() if root not in settings_cls.model_fields}
    if unknown:
        from inkling.cli import all_settings  # every command's settings, read only when a name is in doubt

        for other in all_settings():
            unknown = {root: name for root, name in unknown.items() if root not in other.model_fields}
    return sorted(unknown.values())


def _describe(detail: Any, known: list[str]) -> str:
    """One line for one pydantic error."""
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{key}: there is no such setting{did_you_mean(key, known)}"
    if detail["type"] == "missing":
        return f"{key}: missing"
    message = detail["msg"].removeprefix("Value error, ")
    given = "" if isinstance(detail["input"], dict) or not key else f" (got {detail['input']!r})"
    return f"{key}: {message}{given}" if key else message


def _config_error(problems: list[str]) -> ConfigError:
    if len(problems) == 1:
        return ConfigError(problems[0])
    return ConfigError(f"{len(problems)} settings are wrong:\n  " + "\n  ".join(problems))


def _dedent(docstring: str) -> str:
    first, _, rest = docstring.partition("\n")
    lines = [line.removeprefix("    ") for line in rest.splitlines()]
    return "\n".join([first, *lines]).strip()
