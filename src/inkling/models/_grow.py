"""A trained model made larger: more tokens, a longer context, more layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from inkling.errors import ModelError
from inkling.models._model import LanguageModel
from inkling.models._rope import ntk_theta


def with_more_tokens(
    model: LanguageModel, num_tokens: int, spelled: Sequence[Sequence[int]], vocab_size: int
) -> LanguageModel:
    """A model of the same architecture whose vocabulary has `vocab_size` rows; the old rows are the same bit for bit.

    Args:
        num_tokens: Tokens of the old tokenizer; rows beyond them are padding.
        spelled: For each new token, from the tokenizer's first new id on, the old tokens that spelled it: its row is
            their mean, in the embedding and in the head. Rows beyond these are padding: the mean of all.
    """
    from inkling import models

    config = type(model.config).from_dict({**model.config.to_dict(), "vocab_size": vocab_size})
    with torch.device("meta"):
        grown = models.load(config.model_type).Model(config)
    expected = grown.state_dict()
    weights = {}
    for name, weight in model.state_dict().items():
        if weight.shape != expected[name].shape:
            weight = _grown(weight[:num_tokens], spelled, vocab_size)
        weights[name] = weight
    grown.load_state_dict(weights, assign=True)
    return grown.eval()


def _grown(weight: Tensor, spelled: Sequence[Sequence[int]], vocab_size: int) -> Tensor:
    """(V, C) -> (V', C)."""
    rows = [weight[list(ids)].float().mean(dim=0).to(weight.dtype) for ids in spelled]
    num_padding = vocab_size - len(weight) - len(rows)
    padding = weight.float().mean(dim=0).to(weight.dtype).expand(num_padding, -1)
    return torch.cat([weight, *(row[None] for row in rows), padding])


Stretch = Literal["yarn", "ntk", "linear", "none"]


def with_longer_context(model: LanguageModel, context: int, stretch: Stretch) -> LanguageModel:
    """The same weights for longer texts. Those of learned positions are drawn out between their neighbours.

    Args:
        context: Tokens that it is to see at once, more than before.
        stretch: How rotary positions are changed, see `_rope.py`; `none` leaves them. Learned positions know `linear`.

    Raises ModelError for a stretch that the architecture does not have, and for a model that was stretched before.
    """
    values, old = model.config.to_dict(), model.config.max_position_embeddings
    if context <= old:
        raise ModelError(f"it sees {old:,} tokens already; a longer context is needed")
    weights = dict(model.state_dict())
    changes: dict[str, Any] = {_spelled(model, "max_position_embeddings"): context}
    if "transformer.wpe.weight" in weights:
        if stretch != "linear":
            raise ModelError(f"positions of {model.config.model_type} are learned: only linear stretches them")
        weights["transformer.wpe.weight"] = _drawn_out(weights["transformer.wpe.weight"], context)
    elif stretch != "none":
        theta = getattr(model.config, "rope_theta", None)
        if theta is None:
            raise ModelError(f"positions of {model.config.model_type} cannot be stretched: take none")
        if values.get("rope_scaling") is not None:
            raise ModelError("its positions are stretched already; start from the run before that")
        factor = context / old
        if stretch == "ntk":
            changes["rope_theta"] = ntk_theta(theta, model.config.head_dim, factor)
        else:
            scaling = {"rope_type": stretch, "factor": factor, "original_max_position_embeddings": old}
            changes["rope_scaling"] = scaling
    return _built({**values, **changes}, weights)


def with_more_layers(model: LanguageModel, num_layers: int) -> LanguageModel:
    """A deeper model that computes the same: copies of layers, spread evenly, whose halves add nothing yet.

    LLaMA Pro (Wu et al. 2024, arXiv 2401.02415): a new layer is a copy of the one below it, and the matrices at the end
    of its two halves are zero.

    Raises ModelError when the layers are not more than before, or are of kinds that a copy would shift.
    """
    old = model.config.num_hidden_layers
    if num_layers <= old:
        raise ModelError(f"it has {old} layers already; more are needed")
    values = model.config.to_dict()
    if (
        values.get("decoder_sparse_step", 1) != 1
        or values.get("mlp_only_layers")
        or values.get("first_k_dense_replace")
    ):
        raise ModelError("layers with and without experts take turns here: new ones would disturb that")
    if values.get("value_embeddings"):
        raise ModelError("layers with and without value embeddings take turns here: new ones would disturb that")
    sources = [layer * old // num_layers for layer in range(num_layers)]
    weights: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        found = _LAYER.match(name)
        if found is None:
            weights[name] = weight
            continue
        start, layer, rest = found.groups()
        copies = [place for place, source in enumerate(sources) if source == int(layer)]
        for place in copies:
            is_new_end = place != copies[0] and rest.split(".")[-2] in _ENDS
            weights[f"{start}{place}.{rest}"] = torch.zeros_like(weight) if is_new_end else weight.clone()
    changes: dict[str, Any] = {_spelled(model, "num_hidden_layers"): num_layers}
    if values.get("layer_types"):
        changes["layer_types"] = [values["layer_types"][source] for source in sources]
    return _built({**values, **changes}, weights)


_LAYER = re.compile(r"(.*\.(?:layers|h)\.)(\d+)\.(.*)")
_ENDS = ("o_proj", "down_proj", "w2", "c_proj")


def _spelled(model: LanguageModel, name: str) -> str:
    return model.config.spellings.get(name, name)


def _drawn_out(table: Tensor, rows: int) -> Tensor:
    """(P, C) -> (rows, C), linearly between neighbours."""
    wanted = F.interpolate(table.float().T[None], size=rows, mode="linear", align_corners=True)
    return wanted[0].T.to(table.dtype).contiguous()


def _built(values: dict[str, Any], weights: dict[str, Tensor]) -> LanguageModel:
    from inkling import models

    with torch.device("meta"):
        grown = models.from_config(values)
    grown.load_state_dict(weights, assign=True)
    return grown.eval()
