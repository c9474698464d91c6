"""LoRA: a product of two thin matrices beside a frozen one.

Hu et al. 2021, arXiv 2106.09685; rank-stabilised: Kalajdzievski 2023, arXiv 2312.03732; DoRA: Liu et al. 2024, arXiv
2402.09353. The base's own parameters keep their names; an adapter stands beside them as `<module>.adapters.<name>`.

Letters in shapes: N outputs, K inputs, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from inkling.config import Field, Section
from inkling.errors import ModelError, did_you_mean
from inkling.quantize._apply import head_of, is_turned
from inkling.quantize._modules import QuantizedLinear

Selection = str | None | Sequence[tuple[str, Tensor]]
"""The adapter for all rows, none, or names with the rows that each is for, all dimensions but the last flattened."""
DEFAULT = "default"


class AdapterSettings(Section):
    """LoRA adapters: a small share of the numbers is trained, the rest stays as it is."""

    rank: int = Field(16, ge=1)
    """Of the adapters: more can learn more, and takes more memory."""
    alpha: float = Field(32.0, gt=0)
    """What an adapter adds is multiplied with alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of an adapter's inputs that is dropped in training."""
    targets: list[str] = Field(["all"])
    """Modules that get one, by the last part of their names, such as q_proj; all: every matrix but tables and head."""
    rank_stabilised: bool = False
    """Multiply with alpha / √rank instead, which keeps large ranks stable (rsLoRA)."""
    dora: bool = False
    """Train the length of each row apart from its direction (DoRA): better at low rank, slower."""

    @property
    def scale(self) -> float:
        """What an adapter's product is multiplied with."""
        return float(self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank))


class Lora(nn.Module):
    """What one adapter holds for one matrix (N, K).

    Attributes:
        A: (R, K), uniform at the start.
        B: (N, R), zero at the start, so that an adapter begins by changing nothing.
        magnitude: (N), length of each row, for DoRA; else None.
    """

    def __init__(self, rows: int, columns: int, settings: AdapterSettings) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.empty(settings.rank, columns))
        self.B = nn.Parameter(torch.zeros(rows, settings.rank))
        self.magnitude = nn.Parameter(torch.empty(rows)) if settings.dora else None
        self.dropout = nn.Dropout(settings.dropout)
        self.scale: float = settings.scale

    def init_weights(self, weight: Tensor, generator: Generator | None) -> None:
        """Draw A; set the magnitude to the lengths of the rows of weight (N, K)."""
        bound = self.A.shape[1] ** -0.5
        with torch.no_grad():
            self.A.uniform_(-bound, bound, generator=generator)
            self.B.zero_()
            if self.magnitude is not None:
                self.magnitude.copy_(weight.float().norm(dim=1))

    def delta(self) -> Tensor:
        """What is added to the matrix, (N, K), before a magnitude is applied; in fp32."""
        return self.scale * torch.mm(self.B.float(), self.A.float())

    def whole(self, weight: Tensor) -> Tensor:
        """The matrix with the adapter in it, (N, K) fp32."""
        changed: Tensor = weight.float() + self.delta()
        if self.magnitude is None:
            return changed
        factor: Tensor = self.magnitude.float() / changed.norm(dim=1)
        return changed * factor[:, None]

    def adapted(self, x: Tensor, product: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What the adapted layer gives for x, (…, K) -> (…, N), where the layer alone gives `product`.

        Args:
            weight: The frozen matrix (N, K).
        """
        dropped = self.dropout(x)
        added: Tensor = self.scale * F.linear(F.linear(dropped, self.A), self.B)
        if self.magnitude is None:
            return product + added
        # The norm is a constant for the gradient: section 4.3 of the paper.
        lengths = (weight.float() + self.delta()).norm(dim=1).detach()
        factor: Tensor = self.magnitude / lengths
        plain = product if dropped is x else F.linear(dropped, weight, bias)
        without_bias = plain if bias is None else plain - bias
        result: Tensor = factor * (without_bias + added)
        return result if bias is None else result + bias


class Adapters(nn.ModuleDict):
    """All adapters of one matrix, by name, and which of them are used."""

    def __init__(self) -> None:
        super().__init__()
        self.selection: Selection = None

    def of(self, name: str) -> Lora:
        """One of them."""
        found = self[name]
        assert isinstance(found, Lora)
        return found


def attach(
    model: nn.Module, settings: AdapterSettings, *, name: str = DEFAULT, generator: Generator | None = None
) -> nn.Module:
    """Freeze the model, put a new adapter beside each matrix that the settings name, in place, and use it.

    Raises ModelError when there is no such matrix.
    """
    model.requires_grad_(requires_grad=False)
    for module_name in target_names(model, settings.targets):
        module = model.get_submodule(module_name)
        _add(module, name, settings, generator)
    select(model, name)
    return model


def attach_stored(
    model: nn.Module, settings: AdapterSettings, weights: Mapping[str, Tensor], *, name: str
) -> nn.Module:
    """Put a stored adapter beside the matrices it is for, frozen, without using it yet; in place.

    Args:
        weights: By the names that `adapter_weights` gives.

    Raises:
        ModelError: It is for another model.
    """
    modules = {full.rpartition(".")[0] for full in weights}
    for module_name in sorted(modules):
        try:
            module = model.get_submodule(module_name)
        except AttributeError:
            raise ModelError(f"the adapter {name} changes {module_name}, which this model does not have") from None
        lora = _add(module, name, settings, None)
        for key, parameter in lora.named_parameters():
            found = weights.get(f"{module_name}.{key}")
            if found is None or found.shape != parameter.shape:
                shape = "missing" if found is None else tuple(found.shape)
                raise ModelError(
                    f"the adapter {name} does not fit this model: {module_name}.{key} is {shape}, "
                    f"wanted {tuple(parameter.shape)}"
                )
            with torch.no_grad():
                parameter.copy_(found)
        lora.requires_grad_(requires_grad=False).to(dtype=_stream_dtype(model))
    return model


def _stream_dtype(model: nn.Module) -> torch.dtype:
    """Of what flows through the model."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def target_names(model: nn.Module, targets: Sequence[str]) -> list[str]:
    """The modules with these last names; `all` stands for every matrix of the blocks."""
    head = head_of(model)
    matrices = [
        name
        for name, module in model.named_modules()
        if not isinstance(module, nn.Embedding) and module is not head and _shape(module) is not None
    ]
    known = {name.rpartition(".")[2] for name in matrices}
    for target in targets:
        if target != "all" and target not in known:
            raise ModelError(f"there is no matrix {target!r} in the model{did_you_mean(target, [*known, 'all'])}")
    return [name for name in matrices if "all" in targets or name.rpartition(".")[2] in targets]


def select(model: nn.Module, selection: Selection) -> None:
    """Use an adapter, none, or different ones for different rows."""
    for _, adapters in _all(model):
        adapters.selection = selection


def is_in_use(model: nn.Module) -> bool:
    """Whether the model computes something else than its base."""
    return any(adapters.selection is not None for _, adapters in _all(model))


def disabled(model: nn.Module) -> AbstractContextManager[None]:
    """The model as it was before any adapter, for the time of the block."""
    return selected(model, None)


@contextmanager
def selected(model: nn.Module, selection: Selection) -> Iterator[None]:
    """The model with these adapters for the time of the block."""
    before = [(adapters, adapters.selection) for _, adapters in _all(model)]
    try:
        select(model, selection)
        yield
    finally:
        for adapters, selection in before:
            adapters.selection = selection


def has_adapters(model: nn.Module) -> bool:
    """Whether any matrix has an adapter beside it."""
    return any(True for _ in _all(model))


def adapter_names(model: nn.Module) -> list[str]:
    """The adapters that are held."""
    return sorted({name for _, adapters in _all(model) for name in adapters})


def adapter_weights(model: nn.Module, name: str = DEFAULT) -> dict[str, Tensor]:
    """An adapter's numbers, as `<module>.A`, `<module>.B` and `<module>.magnitude`."""
    return {
        f"{module_name}.{key}": parameter.detach()
        for module_name, adapters in _all(model)
        if name in adapters
        for key, parameter in adapters[name].named_parameters()
    }


# ---------------------------------------------------------------- one matrix


def _all(model: nn.Module) -> Iterator[tuple[str, Adapters]]:
    for name, module in model.named_modules():
        if isinstance(module, Adapters):
            yield name.removesuffix(".adapters"), module


def _add(module: nn.Module, name: str, settings: AdapterSettings, generator: Generator | None) -> Lora:
    shape = _shape(module)
    if shape is None:
        raise ModelError("an adapter stands beside a matrix; this module is none")
    adapters = getattr(module, "adapters", None)
    if adapters is None:
        adapters = Adapters()
        module.adapters = adapters
        module.forward = partial(_forward, module)
    lora = Lora(*shape, settings)
    weight = matrix_of(module)
    lora.init_weights(weight, generator)
    adapters[name] = lora.to(weight.device)
    return lora


def _shape(module: nn.Module) -> tuple[int, int] | None:
    """Rows and columns of its matrix (N, K); None where it has none."""
    if isinstance(module, QuantizedLinear):
        return module.matrix.shape
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        return None
    rows, columns = weight.shape
    return (columns, rows) if is_turned(module) else (rows, columns)


def matrix_of(module: nn.Module) -> Tensor:
    """The frozen matrix, (N, K)."""
    if isinstance(module, QuantizedLinear):
        return module.matrix.dequantize(torch.float32)
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.T if is_turned(module) else weight


def _forward(module: nn.Module, x: Tensor) -> Tensor:
    """The layer with the adapters that are selected; packed matrices are unpacked, since gradients pass through."""
    adapters, bias = module.adapters, module.bias
    assert isinstance(adapters, Adapters)
    assert bias is None or isinstance(bias, Tensor)
    if isinstance(module, QuantizedLinear):
        weight = module.matrix.dequantize(x.dtype)
    else:
        weight = matrix_of(module)
    product = F.linear(x, weight, bias)
    selection = adapters.selection
    if selection is None:
        return product
    if isinstance(selection, str):
        if selection not in adapters:
            return product
        return adapters.of(selection).adapted(x, product, weight, bias)
    flat, result = x.flatten(0, -2), product.flatten(0, -2).clone()
    for name, rows in selection:
        if name in adapters:
            result[rows] = adapters.of(name).adapted(flat[rows], result[rows], weight, bias)
    return result.view_as(product)
