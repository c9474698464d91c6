"""Adapters: a few trained numbers beside a model's frozen ones, `model -> model`.

lora: what stands beside a matrix, and putting it there · merging: adapters made part of the weights · files: in the
format of Hugging Face's PEFT.
"""

from inkling.peft.files import StoredAdapter, read_adapter, write_adapter
from inkling.peft.lora import (
    DEFAULT,
    AdapterSettings,
    adapter_names,
    adapter_weights,
    attach,
    attach_stored,
    disabled,
    has_adapters,
    is_in_use,
    select,
    selected,
)
from inkling.peft.merging import merged, merged_weights

__all__ = [
    "DEFAULT",
    "AdapterSettings",
    "StoredAdapter",
    "adapter_names",
    "adapter_weights",
    "attach",
    "attach_stored",
    "disabled",
    "has_adapters",
    "is_in_use",
    "merged",
    "merged_weights",
    "read_adapter",
    "select",
    "selected",
    "write_adapter",
]
