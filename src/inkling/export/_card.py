"""The model card: what the model is, what it was made of, and how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from inkling import models
from inkling.checkpoint import RunRecord, StoredModel
from inkling.data.shards import Dataset
from inkling.errors import InklingError

_RECIPE = ("steps", "time", "batch_size", "context", "optimizer", "seed")
_MAX_SOURCES = 20
_LICENCE = (
    "## Licence\n\nNot stated yet. The weights carry the rights of the text they were trained on: say here, and in the "
    "header above, under which terms others may use them."
)


def model_card(stored: StoredModel, name: str) -> str:
    """The `README.md` of a model folder, with the header that the Hugging Face hub reads."""
    record = stored.record
    header = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": "other",
        "license_name": "not-stated",
        "tags": ["inkling", stored.config.model_type],
    }
    config = stored.config
    parameters = models.num_parameters(config)
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {name}",
        f"A {config.model_type} language model with {parameters:,} parameters: {config.num_hidden_layers} layers of "
        f"width {config.hidden_size}, {config.num_attention_heads} heads, {config.vocab_size:,} tokens, a context of "
        f"{config.max_position_embeddings:,} tokens.",
        "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
        f'model = AutoModelForCausalLM.from_pretrained("{name}")\n```\n\n'
        f"It saw every document begin after an end-of-text token (id {stored.tokenizer.eot_id}): begin prompts so.",
    ]
    if record is None:
        parts.append("## Training\n\nNot known: the model was not trained here.")
    else:
        parts += [_data(record), _recipe(record), _evaluation(record)]
        if (stored.folder / "loss.png").is_file():
            parts.append("![loss over training steps](loss.png)")
    parts.append(_LICENCE)
    return "\n\n".join(part for part in parts if part) + "\n"


def adapter_card(stored: StoredModel, name: str, base: str) -> str:
    """The `README.md` of an adapter by itself, which is of use beside its base only."""
    header = {"library_name": "peft", "base_model": Path(base).name, "license": "other", "license_name": "not-stated"}
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {name}",
        f"A LoRA adapter for {Path(base).name}, a {stored.config.model_type} language model.",
        "## Use\n\n```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        f'base = AutoModelForCausalLM.from_pretrained("{Path(base).name}")\n'
        f'model = PeftModel.from_pretrained(base, "{name}")\n```',
    ]
    if stored.record is not None:
        parts += [_recipe(stored.record), _evaluation(stored.record)]
    return "\n\n".join([*parts, _LICENCE]) + "\n"


def _data(record: RunRecord) -> str:
    folder = record.data.get("folder")
    if folder is None:
        return ""
    try:
        dataset = Dataset.open(Path(folder))
    except InklingError:
        return f"## Data\n\nThe data folder {Path(folder).name}, which is no longer at hand."
    lines = [f"{dataset.train.num_tokens:,} training tokens, {dataset.validation.num_tokens:,} for validation."]
    sources = dataset.manifest.get("sources", [])
    lines += [f"- {Path(str(source.get('name', source))).name}" for source in sources[:_MAX_SOURCES]]
    if len(sources) > _MAX_SOURCES:
        lines.append(f"- and {len(sources) - _MAX_SOURCES:,} more")
    return "## Data\n\n" + lines[0] + ("\n\n" + "\n".join(lines[1:]) if len(lines) > 1 else "")


def _recipe(record: RunRecord) -> str:
    values: dict[str, Any] = {**record.settings, **record.choices}
    rows = [(key, values[key]) for key in _RECIPE if values.get(key) is not None]
    reasons = [str(reason) for reason in record.choices.get("reasons", [])]
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    table = "| setting | value |\n| --- | --- |\n" + "\n".join(f"| {key} | {value} |" for key, value in rows)
    why = "\n\nHow the rest was chosen:\n\n" + "\n".join(f"- {reason}" for reason in reasons) if reasons else ""
    return f"## Training\n\n{table}\n\nMade with {versions}.{why}"


def _evaluation(record: RunRecord) -> str:
    scores = record.results.get("validation")
    if not scores:
        return "## Evaluation\n\nNot evaluated."
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in scores.items())
    return (
        "## Evaluation\n\nOn the validation split of its own data; bits per byte compare models with different "
        f"tokenizers, losses do not.\n\n| score | value |\n| --- | --- |\n{rows}"
    )
