"""The run-directory format: what a run folder and a checkpoint folder hold. Nothing else reads or writes those files.

The layout is drawn in `docs/architecture.md`. Weights and training state are safetensors; see `tensor_files`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from inkling import files, models, quantize, upgrade
from inkling.errors import CheckpointError, InklingError, ModelError, reason_of
from inkling.models import LanguageModel, ModelConfig
from inkling.quantize import Quantization
from inkling.tensor_files import explained_if_it_fails, read_header, read_tensors, write_tensors
from inkling.tokenizer import Tokenizer
from inkling.upgrade import FORMAT_VERSION

RUN_FILE, CONFIG_FILE, WEIGHTS_FILE, STATE_FILE = (
    "run.json",
    "config.json",
    "model.safetensors",
    "training_state.safetensors",
)

ADAPTER_FOLDER = "adapter"
"""Folder of a run that was tuned with an adapter: the adapter by itself, in PEFT's format."""
REWARD_HEAD_FILE, TEACHER_FILE = "reward_head.safetensors", "teacher.safetensors"
"""What makes a language model a reward model, and what a teacher thought of the rows of a distillation."""
CHECKPOINTS = "checkpoints"
"""Folder of a run that holds what resuming needs."""

Status = Literal["running", "interrupted", "finished", "failed", "imported", "grown"]


class RunRecord(BaseModel):
    """`run.json`: enough to say what the run is, and to run it again."""

    model_config = ConfigDict(extra="forbid")

    format_version: int = FORMAT_VERSION
    status: Status = "running"
    settings: dict[str, Any] = {}
    """Every setting, resolved."""
    choices: dict[str, Any] = {}
    """What was derived or chosen by timing on this machine (precision, micro-batch, …); a resumed run keeps it."""
    versions: dict[str, str] = {}
    hardware: dict[str, Any] = {}
    data: dict[str, Any] = {}
    """Folder of the shards, and the hash of their manifest."""
    tokenizer_sha256: str = ""
    num_parameters: int = 0
    sessions: list[dict[str, Any]] = []
    """Start, end and steps of each time that this run was worked on."""
    results: dict[str, Any] = {}


@dataclass
class TrainingState:
    """What a checkpoint holds beside the weights.

    Attributes:
        step: Optimizer steps done.
        values: Counters and settings of the moment, JSON-able.
        tensors: Optimizer state and weight averages, by flat name.
    """

    step: int
    values: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


# ---------------------------------------------------------------- run.json


def read_run(run: Path) -> RunRecord:
    """The record of a run. Raises CheckpointError when the folder is no run of ours, or of a newer version."""
    if not run.is_dir():
        raise CheckpointError(f"there is no run {run}. Run: inkling runs")
    path = run / RUN_FILE
    if not path.is_file():
        what = "somebody else's model" if (run / CONFIG_FILE).is_file() else "not a run"
        raise CheckpointError(f"{run} is {what}: it has no {RUN_FILE}, so it was not trained here")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        upgrade.upgrade_record(content)
        version = content.get("format_version")
        if version != FORMAT_VERSION:
            raise CheckpointError(f"{path} has format version {version}, this Inkling reads {FORMAT_VERSION}")
        return RunRecord.model_validate(content)
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        raise CheckpointError(f"{path} is damaged ({' '.join(str(error).split())[:200]})") from None


def run_of(folder: Path) -> Path:
    """The run that a folder is, or that a checkpoint folder belongs to."""
    above = folder.resolve().parent.parent
    is_checkpoint = not (folder / RUN_FILE).is_file() and folder.resolve().parent.name == CHECKPOINTS
    return above if is_checkpoint and (above / RUN_FILE).is_file() else folder


def write_run(run: Path, record: RunRecord) -> None:
    """Create or replace the record of a run."""
    with explained_if_it_fails(run / RUN_FILE):
        files.write_json(run / RUN_FILE, record.model_dump(mode="json"))


# ---------------------------------------------------------------- models


def save_model(
    folder: Path,
    model: LanguageModel,
    tokenizer: Tokenizer,
    weights: dict[str, Tensor] | None = None,
    quantization: Quantization | None = None,
) -> None:
    """Make `folder` a complete Hugging Face checkpoint of `model`.

    Args:
        weights: Replace the model's own (an average).
        quantization: How the model's matrices are packed, where they are.
    """
    tokens = {"bos_token_id": tokenizer.eot_id, "eos_token_id": tokenizer.eot_id}
    packed = {} if quantization is None else {"quantization_config": quantization.to_dict()}
    with explained_if_it_fails(folder):
        if not (folder / CONFIG_FILE).exists():
            folder.mkdir(parents=True, exist_ok=True)
            tokenizer.save(folder)
            generation = {**tokens, "eos_token_id": sorted(tokenizer.end_ids), "pad_token_id": tokenizer.eot_id}
            files.write_json(folder / "generation_config.json", generation)
            files.write_json(folder / CONFIG_FILE, {**model.config.to_dict(), **tokens, **packed})
    save_weights(folder, weights or model.state_dict())


def save_weights(folder: Path, weights: dict[str, Tensor]) -> None:
    """Replace the weights of a checkpoint folder in one rename."""
    write_tensors(folder / WEIGHTS_FILE, weights)


def load_model(
    folder: Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> tuple[LanguageModel, Tokenizer]:
    """The model, in evaluation mode, and the tokenizer of a run or of any checkpoint folder with the same layout.

    Raises CheckpointError when something is missing, damaged or does not fit together.
    """
    config = _read_config(folder)
    quantization = _quantization(folder, config)
    shape = _model_config(folder, config)
    weights, _ = read_tensors(folder / WEIGHTS_FILE, verify=False)
    model = _skeleton(folder, shape, quantization, len(weights))
    load_weights(model, weights, folder)
    tokenizer = _read_tokenizer(folder, model.config.vocab_size)
    return model.to(device=device, dtype=dtype).eval(), tokenizer


@dataclass(frozen=True)
class StoredModel:
    """A checkpoint folder, opened without reading its weights.

    Attributes:
        config: Shape of the model.
        shapes: Of each tensor, by name.
        record: `run.json`, where there is one.
        quantization: Of its matrices, where they are packed.
    """

    folder: Path
    config: ModelConfig
    tokenizer: Tokenizer
    shapes: dict[str, tuple[int, ...]]
    record: RunRecord | None
    quantization: Quantization | None = None

    def tensors(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """The tensors, read one by one. Raises CheckpointError when the file is damaged."""
        try:
            for name in names:
                # Opened for each one: what a mapped file has shown stays in memory as long as it is open.
                with safe_open(self.folder / WEIGHTS_FILE, framework="pt") as file:
                    tensor = file.get_tensor(name)
                yield name, tensor
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.folder / WEIGHTS_FILE} is damaged ({reason_of(error)})") from None


def open_model(folder: Path) -> StoredModel:
    """Look at a run, or any checkpoint folder with the same layout. Raises CheckpointError as `load_model`."""
    values = _read_config(folder)
    quantization = _quantization(folder, values)
    config = _model_config(folder, values)
    path = folder / WEIGHTS_FILE
    try:
        read_header(path)
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({reason_of(error)})") from None
    expected = _skeleton(folder, config, quantization, len(shapes)).state_dict()
    _check_shapes({name: tuple(tensor.shape) for name, tensor in expected.items()}, shapes, folder)
    record = read_run(folder) if (folder / RUN_FILE).is_file() else None
    return StoredModel(folder, config, _read_tokenizer(folder, config.vocab_size), shapes, record, quantization)


def _quantization(folder: Path, values: dict[str, Any]) -> Quantization | None:
    """How the matrices of a model are packed; takes that out of `values`."""
    found = values.pop("quantization_config", None)
    try:
        return None if found is None else Quantization.from_dict(found)
    except ModelError as error:
        raise CheckpointError(f"{folder} holds a model that Inkling cannot run: {error}") from None


def _skeleton(folder: Path, config: ModelConfig, quantization: Quantization | None, num_tensors: int) -> LanguageModel:
    """The model without its numbers, of which the file holds so many tensors."""
    if num_tensors < config.least_tensors:
        raise CheckpointError(f"{folder} is damaged: {num_tensors} tensors cannot be {config.num_hidden_layers} layers")
    model = models.without_memory(config)
    try:
        if quantization is not None:
            quantize.quantized_skeleton(model, quantization)
    except ModelError as error:
        raise CheckpointError(f"{folder} holds a model that Inkling cannot run: {error}") from None
    return model


def _model_config(folder: Path, values: dict[str, Any]) -> ModelConfig:
    try:
        return models.read_config(values)
    except ModelError as error:
        raise CheckpointError(f"{folder} holds a model that Inkling cannot run: {error}") from None


def _read_tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.load(folder)
    except InklingError as error:
        raise CheckpointError(f"the tokenizer of {folder} cannot be used: {error}") from None
    if tokenizer.vocab_size > vocab_size:
        raise CheckpointError(f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model only {vocab_size}")
    return tokenizer


def load_weights(model: LanguageModel, weights: dict[str, Tensor], source: Path) -> None:
    """Put `weights` into `model`, replacing its tensors. Raises CheckpointError when names or shapes differ."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    _check_shapes(expected, {name: tuple(tensor.shape) for name, tensor in weights.items()}, source)
    model.load_state_dict(weights, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def _check_shapes(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], source: Path) -> None:
    missing, unexpected = expected.keys() - found.keys(), found.keys() - expected.keys()
    wrong = [name for name in expected.keys() & found.keys() if expected[name] != found[name]]
    if missing or unexpected or wrong:
        named = ", ".join(sorted([*missing, *unexpected, *wrong])[:3])
        raise CheckpointError(
            f"the weights in {source} are not this architecture's: {len(missing)} missing, {len(unexpected)} "
            f"unexpected, {len(wrong)} of another shape ({named}, …)"
        )


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise CheckpointError(f"there is no run {folder}. Run: inkling runs")
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no model: it has no {CONFIG_FILE}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({reason_of(error)})") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is not the configuration of a language model")
    text = config.get("text_config", config)  # of a model that sees
    if not isinstance(text, dict) or not isinstance(text.get("vocab_size"), int):
        raise CheckpointError(f"{path} is not the configuration of a language model")
    return config


# ---------------------------------------------------------------- training checkpoints


def save_checkpoint(run: Path, name: str, weights: dict[str, Tensor], state: TrainingState) -> Path:
    """Write `checkpoints/<name>/`, whole or not at all: weights, state, and the run's configuration and tokenizer.

    `name` is `step-001000`, or `epoch-003-step-001000` for the end of a pass over the data.
    """
    folder = run / CHECKPOINTS / name
    if folder.exists():  # the same step again, after a roll-back or a damaged file
        shutil.rmtree(folder)
    with explained_if_it_fails(folder), files.new_folder(folder) as temporary:
        for path in run.glob("*.json"):
            if path.name != RUN_FILE and not path.name.startswith("."):
                shutil.copyfile(path, temporary / path.name)
        write_tensors(temporary / WEIGHTS_FILE, weights)
        values = json.dumps({"step": state.step, **state.values}, allow_nan=False)
        write_tensors(temporary / STATE_FILE, state.tensors, {"inkling": values})
    return folder


def checkpoint_folders(run: Path) -> list[Path]:
    """The finished checkpoints of a run, by step, oldest first."""
    folders = (path for path in (run / CHECKPOINTS).glob("*step-*") if not path.name.startswith("."))
    return sorted(folders, key=lambda folder: (int(folder.name.rpartition("-")[2]), folder.name))


def prune_checkpoints(run: Path, kind: str, keep: int) -> None:
    """Delete all but the last `keep` checkpoints whose name starts with `kind` ("step" or "epoch")."""
    folders = [folder for folder in checkpoint_folders(run) if folder.name.startswith(f"{kind}-")]
    for folder in folders[: max(len(folders) - keep, 0)]:
        shutil.rmtree(folder, ignore_errors=True)


def load_checkpoint(run: Path, on_damaged: Callable[[str], None]) -> tuple[dict[str, Tensor], TrainingState] | None:
    """Weights and state of the newest whole checkpoint, or None when there is none.

    Damaged ones are passed over, and `on_damaged` is told which and why.
    """
    files.remove_unfinished(run)
    files.remove_unfinished(run / CHECKPOINTS)
    for folder in reversed(checkpoint_folders(run)):
        try:
            weights, _ = read_tensors(folder / WEIGHTS_FILE, verify=True)
            tensors, metadata = read_tensors(folder / STATE_FILE, verify=True)
            values = json.loads(metadata["inkling"])
        except (CheckpointError, KeyError, ValueError) as error:
            on_damaged(f"checkpoint {folder.name} is passed over: {error}")
            continue
        return weights, TrainingState(step=values.pop("step"), values=values, tensors=tensors)
    return None
