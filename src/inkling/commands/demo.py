"""`inkling demo`: the whole row, offline, in minutes."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from inkling.checkpoint import RunRecord
from inkling.commands._text_scores import floors_of
from inkling.commands.train import start_or_resume
from inkling.config import CommandSettings, Duration, Field
from inkling.data.prep import prep
from inkling.data.prep_options import PrepOptions
from inkling.data.shards import Dataset
from inkling.errors import InklingError
from inkling.progress import LiveProgress
from inkling.tokenizer import Tokenizer
from inkling.train.log import read_samples
from inkling.train.settings import LogSettings, TrainSettings

_STOPPED = "stopped. inkling demo goes on where it was; if a run is there already, inkling train --resume does"


class Settings(CommandSettings):
    """The whole row, offline, in minutes: text, tokenizer, training, evaluation, samples.

    Reads the Python sources that are on this machine, where they lie. Ctrl-C while it trains leaves a run that
    `inkling train --resume` goes on with; before that, `inkling demo` goes on where it was.

    Example: inkling demo
    """

    text: str = "builtin:python"
    """What to learn: builtin:python, or any file or folder."""
    data: Path = Path("data/demo")
    """Data folder to make, or to use again."""
    out: Path = Path("runs/demo")
    """Run directory."""
    time: Duration = 150.0
    """Time to train, such as 3m or 600s. The other phases take about a minute."""
    size: str = "3m"
    """Named size of the model."""
    vocab_size: int = Field(2048, ge=260)
    """Tokens of the tokenizer."""
    seed: int = Field(1, ge=0)
    """Seed of weights and data order."""
    as_json: bool = False
    """Print one JSON object with the results on standard output."""


def run(settings: Settings) -> int:
    """Prepare, train, compare, show. Exit status 130 after Ctrl-C."""
    started = time.monotonic()
    with LiveProgress(quiet=settings.as_json) as progress:
        train = TrainSettings(
            data=settings.data,
            out=settings.out,
            size=settings.size,
            time=settings.time,
            seed=settings.seed,
            resume=False,
            log=LogSettings(prompt="def "),
        )
        try:
            prepare(settings, progress)
            path, record = start_or_resume(train, progress)
        except KeyboardInterrupt:  # once a run is there, it saves itself and says so
            raise InklingError(_STOPPED) from None
        if record.status == "interrupted":
            progress.note(f"stopped. Go on with it:  inkling train --resume --out {path}")
            return 128 + signal.SIGINT
        progress("floors", 0, None, "a byte trigram model and xz -9 of the same text")
        floors = floors_of(Dataset.open(settings.data), Tokenizer.load(settings.data))
    show(path, record, floors, time.monotonic() - started, settings)
    return 0


def prepare(settings: Settings, progress: LiveProgress) -> None:
    """Make the data folder, unless it is there."""
    options = PrepOptions(vocab_size=settings.vocab_size, val_fraction=0.03)
    prepared = prep([settings.text], settings.data, options, on_progress=progress)
    splits = prepared.manifest["splits"]
    progress.note(
        f"{settings.data}: {prepared.report['documents_kept']:,} documents, "
        f"{splits['train']['num_tokens']:,} training tokens, {prepared.manifest['vocab_size']:,} in the vocabulary"
    )


def show(path: Path, record: RunRecord, floors: dict[str, float], seconds: float, settings: Settings) -> None:
    """The results, before and after, and what to type next."""
    scores = record.results["validation"]
    samples = read_samples(path)
    if settings.as_json:
        result = {
            "run": str(path),
            "params": record.num_parameters,
            "bits_per_byte": scores["val_bits_per_byte"],
            "floors": floors,
            "seconds": round(seconds, 1),
        }
        print(json.dumps(result))
        return
    print(f"\nBefore training, the model writes:\n\n{_indent(samples[0])}")
    print(f"\nAfter {record.results['train_seconds']:.0f} seconds of training:\n\n{_indent(samples[-1])}")
    print("\nBits per byte on text that it never saw (lower is better):\n")
    print(f"  {record.num_parameters / 1e6:.1f} M parameters, this run    {scores['val_bits_per_byte']:.3f}")
    print(f"  byte trigram model              {floors['trigram']:.3f}")
    print(f"  xz -9                           {floors['xz']:.3f}")
    print(f"\nLoss curve     {path / 'loss.png'}")
    print(f"Run directory  {path}   ({seconds:.0f} s in all)")
    print("\nNext:")
    print(f'  inkling generate {path} --prompt "class Config:"')
    print("  inkling prep YOUR_TEXT -o data/mine && inkling train data/mine --time 10m")
    print(f"  inkling serve {path}      (a page at http://127.0.0.1:8000; needs the extra serve)")
    print(f"  inkling export {path} hf  (also gguf, ollama, onnx)")
    print(f"  inkling report {path}     (one page about it)")
    print(f"  inkling tune {path} YOUR_CHATS.jsonl")


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines()[:12])
