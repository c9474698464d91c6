"""torch.compile where it works: a machine without a compiler goes on without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def compiled(loss_fn: Callable[..., Tensor], on_failure: Callable[[str], None]) -> Callable[..., Tensor]:
    """The compiled function, or from its first failure to compile on the function as it is.

    A run that was begun with a compiler, or whose timings were kept from such a time, may go on where there is none.

    Args:
        on_failure: Told why, once.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes a second, which only those who compile pay

    used = torch.compile(loss_fn)

    def call(*arguments: Any) -> Tensor:
        nonlocal used
        try:
            return used(*arguments)
        except TorchDynamoException as error:
            if used is loss_fn:
                raise
            used = loss_fn
            on_failure(why(error))
        return used(*arguments)

    return call


def why(error: BaseException) -> str:
    """The first line of what made torch.compile fail, or its kind where it says nothing."""
    cause = getattr(error, "inner_exception", error)
    return next(iter(str(cause).strip().splitlines()), type(cause).__name__)
