"""Kernels of attention beside each other: all of them see the same documents and windows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inkling.models import PLAIN, AttentionKernel, Documents, Scoring, attend, attention_kernel, other_kernels

SEGMENTS = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2], [5, 6, 6, 6, 6, 6, 6, 6, 7, 7, 7, 7]])


def inputs(device: str = "cpu", dtype: torch.dtype = torch.float32, D: int = 16) -> list[Tensor]:
    """Queries of four heads, keys and values of two, (B, H or K, T, D)."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, heads, 12, D, generator=generator).to(device, dtype) for heads in (4, 2, 2)]


def with_gradients(kernel: AttentionKernel, some: list[Tensor], scoring: Scoring) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in some]
    with attention_kernel(kernel):
        mixed = attend(*leaves, Documents(SEGMENTS.to(some[0].device)), scoring)
    mixed.backward(torch.linspace(-1, 1, mixed.numel(), device=mixed.device).view_as(mixed).to(mixed.dtype))
    return [mixed.detach(), *(x.grad for x in leaves if x.grad is not None)]


def test_documents_tell_every_kernel_the_same() -> None:
    documents = Documents(SEGMENTS)
    for row, segments in enumerate(SEGMENTS.tolist()):
        for query in range(12):
            same = [segments[key] == segments[query] and key <= query for key in range(12)]
            assert documents.mask[row, 0, query].tolist() == same
            assert documents.places[row, query] == sum(same) - 1
    assert documents.ends.tolist() == [0, 4, 7, 12, 13, 20, 24]
    blocks = documents.blocks(None)
    assert blocks.shape[0] == 2
    assert documents.blocks(None) is blocks


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("scoring", [PLAIN, Scoring(window=3)])
@pytest.mark.parametrize("kernel", ["explicit", "flex", "varlen"])
def test_kernels_agree_on_packed_rows(kernel: AttentionKernel, scoring: Scoring) -> None:
    some = inputs()
    with torch.no_grad(), attention_kernel("sdpa"):
        wanted = attend(*some, Documents(SEGMENTS).mask, scoring)
    with torch.no_grad(), attention_kernel(kernel):
        torch.testing.assert_close(attend(*some, Documents(SEGMENTS), scoring), wanted)


@pytest.mark.parametrize("scoring", [PLAIN, Scoring(window=3), Scoring(slopes=(0.5, 0.4, 0.3, 0.2))])
def test_gradients_of_the_explicit_kernel_are_those_of_torchs(scoring: Scoring) -> None:
    some = inputs()
    for one, other in zip(
        with_gradients("explicit", some, scoring), with_gradients("sdpa", some, scoring), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("T", [1, 7, 64, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_explicit_kernel_is_causal_attention_at_any_length(T: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    results = []
    q, k, v = (torch.randn(1, 2, T, 8).to(dtype) for _ in range(3))
    for kernel in ("explicit", "sdpa"):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        with attention_kernel(kernel):  # type: ignore[arg-type]
            mixed = attend(*leaves, None)
        mixed.float().square().sum().backward()
        results.append([mixed.detach(), *(x.grad for x in leaves)])
    for one, other in zip(*results, strict=True):
        tolerance = 1e-4 if dtype == torch.float32 else 3e-2
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_the_choice_holds_inside_its_block_alone() -> None:
    some = [x.bfloat16() for x in inputs()]
    before = attend(*some, None)
    with attention_kernel("sdpa"), attention_kernel("auto"):
        torch.testing.assert_close(attend(*some, None), before, rtol=0, atol=0)
    assert other_kernels(some[2], 12) == ["sdpa"]
    assert other_kernels(some[2], 2000) == ["explicit"]
    assert other_kernels(some[2].float(), 12) == ["explicit"]


@pytest.mark.gpu
@pytest.mark.parametrize("scoring", [PLAIN, Scoring(window=3)])
@pytest.mark.parametrize("kernel", ["flex", "varlen"])
def test_kernels_agree_on_a_gpu(kernel: AttentionKernel, scoring: Scoring) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    some = inputs("cuda", torch.bfloat16, D=64)
    for one, other in zip(with_gradients(kernel, some, scoring), with_gradients("sdpa", some, scoring), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)
