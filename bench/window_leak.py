"""What a validation split of overlapping windows measures: a reference system's training summary, with ours beside it.

    python bench/window_leak.py books.txt -o result.json [--steps 1400] [--size 4m]

The reference cuts about 200 KB of text (the first thousand lines of four books, three Python files three times over)
into windows one token apart, and keeps one in twenty for validation: nearly all of these have a training window one
token away. Here the same is done with stand-in text and our own model and loss; beside its "validation" stand text of
the same books further on and other Python files, the leak check, and both code suites with their floors.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from inkling import checkpoint, models
from inkling.commands._subjects import ModelSubject, random_subject
from inkling.data.leakage import LEAKED_SHARE, leaked_shares
from inkling.data.loader import windows_of_ids
from inkling.data.shards import ShardInfo, TokenSplit
from inkling.eval import tasks
from inkling.eval.perplexity import bytes_per_token, evaluate
from inkling.eval.subject import Repeated
from inkling.models import LanguageModel
from inkling.sandbox import Sandbox
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.train import train_bpe

BLOCK, BATCH, VOCABULARY = 128, 8, 8000
SHAPES = {
    "4m": {"hidden_size": 192, "num_hidden_layers": 4, "intermediate_size": 768},
    "27m": {"hidden_size": 512, "num_hidden_layers": 6, "intermediate_size": 2048},
}


def corpus(books: Path) -> tuple[str, str, str]:
    """The training text, unseen text of the same books, and unseen Python."""
    texts = books.read_text(encoding="utf-8").split("<|endoftext|>")
    long = sorted((text for text in texts if text.count("\n") > 3000), key=len)[:4]
    folder = Path(sysconfig.get_paths()["stdlib"])
    code = [(folder / name).read_text(encoding="utf-8") for name in ("heapq.py", "bisect.py", "queue.py")]
    train = "\n".join("\n".join(text.splitlines()[:1000]) for text in long) + "\n" + "\n".join(code * 3)
    unseen = "\n".join("\n".join(text.splitlines()[2000:2300]) for text in long)
    other = "\n".join((folder / name).read_text(encoding="utf-8") for name in ("textwrap.py", "calendar.py"))
    return train, unseen, other


def split_of(folder: Path, name: str, pieces: list[np.ndarray]) -> TokenSplit:
    """Pieces of tokens as the split of a data folder, for the leak check."""
    tokens = np.concatenate(pieces).astype("<u2")
    tokens.tofile(folder / f"{name}.bin")
    np.cumsum([len(piece) for piece in pieces]).astype("<u8").tofile(folder / f"{name}.idx")
    return TokenSplit(folder, [ShardInfo(name, len(pieces), len(tokens), 0, "")], np.dtype("<u2"))


def perplexity(model: LanguageModel, tokenizer: Tokenizer, text: str) -> tuple[float, float]:
    """Of text that was never trained on: per token, and bits per byte."""
    ids = np.array([tokenizer.eot_id, *tokenizer.encode(text)])
    lengths = bytes_per_token(tokenizer.token_bytes, model.config.vocab_size)
    score = evaluate(model, windows_of_ids(ids, BLOCK, 32, tokenizer.eot_id), bytes_of_token=lengths)
    return score.perplexity, score.bits_per_byte


@torch.inference_mode()
def leaky_perplexity(model: LanguageModel, windows: np.ndarray) -> float:
    """As the reference measures it: the mean loss of at most 50 batches of its own validation windows."""
    model.eval()
    losses = []
    for start in range(0, min(len(windows), 50 * BATCH), BATCH):
        rows = torch.from_numpy(windows[start : start + BATCH].astype(np.int64))
        losses.append(F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten()).item())
    return math.exp(sum(losses) / len(losses))


def main() -> None:
    """Reads the options, trains, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("books", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--size", choices=sorted(SHAPES), default="4m")
    parser.add_argument("--lr", type=float, default=1e-3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    train_text, unseen, other = corpus(arguments.books)
    tokenizer = train_bpe([train_text], VOCABULARY)
    ids = np.array(tokenizer.encode(train_text))
    starts = list(range(len(ids) - BLOCK))
    random.Random(0).shuffle(starts)
    count = len(starts) // 20
    validation = np.stack([ids[start : start + BLOCK + 1] for start in starts[:count]])
    chosen = starts[count:]
    module = models.load("llama")
    values = {**SHAPES[arguments.size], "num_attention_heads": 8, "max_position_embeddings": 256}
    config = module.Config.from_dict({**values, "model_type": "llama", "vocab_size": tokenizer.vocab_size})
    model = module.Model(config)
    model.init_weights(torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), arguments.lr, betas=(0.9, 0.95), weight_decay=0.01)
    rows: list[dict[str, Any]] = []
    started_s = time.perf_counter()
    for step in range(1, arguments.steps + 1):
        model.train()
        warm = min(1.0, step / 100)
        optimizer.param_groups[0]["lr"] = arguments.lr * warm
        first = (step * BATCH) % (len(chosen) - BATCH)
        batch = torch.from_numpy(
            np.stack([ids[s : s + BLOCK + 1] for s in chosen[first : first + BATCH]]).astype(np.int64)
        )
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 200 == 0:
            books, code = perplexity(model, tokenizer, unseen), perplexity(model, tokenizer, other)
            row = {"step": step, "its_validation": leaky_perplexity(model, validation)}
            row |= {"unseen_books": books[0], "unseen_books_bits_per_byte": books[1]}
            row |= {"unseen_python": code[0], "unseen_python_bits_per_byte": code[1]}
            rows.append(row)
            print(json.dumps(row), flush=True)
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": len(ids),
        "curve": rows,
    }
    found["seconds"] = time.perf_counter() - started_s
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained = split_of(folder, "train", [ids[s : s + BLOCK + 1] for s in chosen[:: BLOCK // 2]])
        its_own = split_of(folder, "val", [ids[s : s + BLOCK + 1] for s in starts[:200]])
        ours = split_of(folder, "unseen", [np.array(tokenizer.encode(text)) for text in (unseen, other)])
        for what, split in (("its_windows", its_own), ("unseen_text", ours)):
            shares = leaked_shares(trained, split)
            found[f"leaked_{what}"] = [int((shares >= LEAKED_SHARE).sum()), len(shares)]
        run = folder / "run"
        checkpoint.save_model(run, model, tokenizer)
        with Sandbox() as box:
            options = tasks.Options(sandbox=box)
            for task_name in ("code_suite", "code_suite_fair"):
                task = tasks.load(task_name)
                items = task.read(options)
                subjects = {"trained": ModelSubject("", model.eval(), tokenizer)}
                subjects |= {f"random {seed}": random_subject(model, tokenizer, seed) for seed in range(4)}
                subjects |= {f"always {word!r}": Repeated(word) for word in ("item", " the")}
                found[task_name] = {
                    label: {metric: one.value for metric, one in task.grade(items, subject, options).metrics.items()}
                    for label, subject in subjects.items()
                }
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
