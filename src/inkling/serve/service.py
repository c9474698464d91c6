"""What is served, and what all routes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from inkling.infer.grammar import GrammarMaker
from inkling.models import LanguageModel
from inkling.serve.errors import ApiError
from inkling.serve.keys import Allowance, KeyStore
from inkling.serve.metrics import Metrics
from inkling.serve.worker import Worker
from inkling.tokenizer import Tokenizer


@dataclass
class Served:
    """A model, or an adapter of one, and what computes it.

    Attributes:
        adapter: The adapter's name in the model; None: the model alone.
        parent: Name of the adapter's model.
    """

    name: str
    model: LanguageModel
    tokenizer: Tokenizer
    worker: Worker
    created_s: int
    adapter: str | None = None
    parent: str | None = None
    _grammars: GrammarMaker | None = None

    def grammars(self) -> GrammarMaker:
        """Makes what output may be held to; made when first asked for."""
        if self._grammars is None:
            self._grammars = GrammarMaker(self.tokenizer, self.tokenizer.vocab_size)
        return self._grammars


@dataclass(frozen=True)
class ServiceLimits:
    """Attributes:
    timeout_s: Longest time of a request.
    """

    timeout_s: float = 600.0


class Service:
    """What the routes share.

    Args:
        served: The models, by name.
        keys: Who may come; None: everybody.
        hosts: Names by which the service may be asked for; None: any. Without keys on the machine's own address, these
            keep web pages from reaching it under a name of theirs (DNS rebinding).
        log: Is told of each request; None: nobody is.
    """

    def __init__(
        self,
        served: Mapping[str, Served],
        metrics: Metrics,
        keys: KeyStore | None,
        limits: ServiceLimits,
        hosts: frozenset[str] | None = None,
        log: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.served = served
        self.metrics = metrics
        self.keys = keys
        self.hosts = hosts
        self.log = log
        self.limits = limits
        self.allowance = Allowance()
        self.draining = False

    @property
    def num_open(self) -> int:
        """Completions that are not finished."""
        return sum(worker.num_open for worker in self.workers)

    @property
    def workers(self) -> list[Worker]:
        """Of the models; those of an adapter are its model's."""
        return list({id(one.worker): one.worker for one in self.served.values()}.values())

    def model(self, name: str) -> Served:
        """A model by its name. Raises ApiError for an unknown one."""
        if name not in self.served:
            known = ", ".join(self.served)
            raise ApiError(404, f"there is no model {name!r} (known: {known})", param="model", code="model_not_found")
        return self.served[name]


def check_ids(ids: list[int], tokenizer: Tokenizer, param: str) -> None:
    if any(not 0 <= number < tokenizer.vocab_size for number in ids):
        raise ApiError(400, f"{param} holds an id outside of 0 to {tokenizer.vocab_size - 1}", param=param)
