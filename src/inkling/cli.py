"""The `inkling` command: verb → `commands/<verb>.py`. Imports no torch, so that `--help` is immediate."""

from __future__ import annotations

import importlib
import keyword
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import inkling
from inkling.errors import InklingError, did_you_mean

if TYPE_CHECKING:
    from inkling.config import CommandSettings

VERBS = {
    "demo": "The whole row, offline, in minutes: text, tokenizer, training, evaluation, samples",
    "start": "Four questions, a plan, and the run: the guided way",
    "prep": "Turn files and folders into a data folder: cleaned, deduplicated, split, tokenized",
    "mix": "Several data folders as one to train on, each with its share",
    "tokenizer train": "Train a tokenizer on text",
    "tokenizer report": "Say how a tokenizer treats a text",
    "tokenizer compare": "Compare tokenizers on your text, in one table",
    "tokenizer convert": "Write a tokenizer as tokenizer.json, tiktoken ranks or GPT-2's files",
    "tokenizer repair": "Say what is wrong with a tokenizer, and mend it",
    "tokenizer add": "Add tokens to a tokenizer, or to a run with its embedding",
    "plan": "Before a run: its size, memory, time, disk, and the loss to expect",
    "train": "Train a model on a data folder, or resume a run",
    "grow": "A trained run with a longer context or more layers",
    "tune": "Teach a run answers, preferences and rewards",
    "sample": "Let a run answer prompts, and grade the answers",
    "sweep": "Train with every combination of some options, and compare",
    "import": "Take in a model that others made: Hugging Face, GGUF, nanoGPT, litgpt",
    "export": "Write a model for another runtime (GGUF, Hugging Face, Ollama, ONNX), and check it there",
    "serve": "Runs as a service for every OpenAI client, with a page to talk to them",
    "keys create": "Make an API key for the service",
    "keys list": "List the API keys",
    "keys revoke": "Let an API key be valid no more",
    "quantize": "Weights in 8 or 4 bits: smaller and faster, with what it costs beside it",
    "eval": "How well a run predicts and what it can do, beside honest floors",
    "report": "All about a run on one page: curves, scores, samples, data, cost, lineage",
    "compare": "Runs side by side, with the significance of each difference",
    "lineage": "Where a run comes from, and what came of it, by hash",
    "generate": "Continue a prompt, a file of prompts or standard input",
    "chat": "Talk to a run on the terminal",
    "models": "Architectures and sizes: exact parameters, memory and time on this machine",
    "runs": "List the runs in a folder with their status and best score",
    "upgrade": "Bring a run or a settings file of an older Inkling to the present format",
    "board": "The curves of runs while they train, on a local page or in the terminal",
    "doctor": "What this machine has, and what the defaults will therefore be",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status. Errors are one line on stderr; `--debug` shows the traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"inkling {inkling.__version__}")
        return 0
    debug = "--debug" in arguments
    try:
        verb, rest = split_verb(arguments)
        return _run(verb, rest)
    except InklingError as error:
        if debug:
            raise
        print(f"inkling: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        if debug:
            raise
        print("inkling: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader left, as in `inkling generate … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except Exception as error:
        if debug:
            raise
        message = " ".join(str(error).split()) or "no message"
        print(
            f"inkling: unexpected {type(error).__name__}: {message}. Add --debug for the traceback",
            file=sys.stderr,
        )
        return 1


def overview() -> str:
    """The text of `inkling --help`."""
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {verb:<{width}}{line}" for verb, line in VERBS.items())
    return (
        "Inkling grows small language models: raw text in, a model you can talk to out.\n\n"
        f"usage: inkling VERB [OPTIONS]\n\n{verbs}\n\n"
        "  inkling VERB --help   the verb's options, with defaults, units and an example\n"
        "  inkling --version\n\n"
        "Settings: defaults < --preset < --config FILE.yaml < INKLING_SECTION__KEY < command line.\n"
        "Start with: inkling demo"
    )


def split_verb(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The verb, of one word or two, and what follows it. Raises InklingError for an unknown one."""
    for length in (2, 1):
        verb = " ".join(arguments[:length])
        if verb in VERBS:
            return verb, list(arguments[length:])
    first = arguments[0]
    family = [verb for verb in VERBS if verb.startswith(f"{first} ")]
    if family:
        raise InklingError(f"say which: {', '.join(f'inkling {verb}' for verb in family)}")
    raise InklingError(f"there is no verb {first!r}{did_you_mean(first, VERBS)}. Run: inkling --help")


def command_module(verb: str) -> ModuleType:
    """The module behind a verb: `tokenizer train` → `inkling.commands.tokenizer_train`, `import` → `….import_`."""
    name = verb.replace(" ", "_") + ("_" if keyword.iskeyword(verb) else "")
    return importlib.import_module(f"inkling.commands.{name}")


def all_settings() -> Iterator[type[CommandSettings]]:
    """The settings class of every verb."""
    for verb in VERBS:
        yield command_module(verb).Settings


def _run(verb: str, arguments: list[str]) -> int:
    from inkling.config import load  # pydantic takes 0.1 s, which `inkling --help` need not pay

    module = command_module(verb)
    settings = load(module.Settings, arguments, prog=f"inkling {verb}")
    status = module.run(settings)
    return int(status or 0)
