"""Numbers of a running service, in Prometheus' text format."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Histogram:
    """Counts of durations by bucket."""

    def __init__(self) -> None:
        self.counts = [0] * (len(_BUCKETS_S) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float, count: int = 1) -> None:
        """Count some of the same duration."""
        self.counts[bisect_left(_BUCKETS_S, seconds)] += count
        self.sum_s += seconds * count

    def lines(self, name: str, what: str) -> Iterator[str]:
        """Its lines."""
        yield f"# HELP {name} {what}"
        yield f"# TYPE {name} histogram"
        total = 0
        for bound, count in zip((*_BUCKETS_S, "+Inf"), self.counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self.sum_s}"
        yield f"{name}_count {total}"


class Metrics:
    """Of all models together."""

    def __init__(self) -> None:
        self.first_token, self.between_tokens = Histogram(), Histogram()
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = self.aborts = self.rejections = 0
        self.responses: Counter[tuple[str, int]] = Counter()

    def text(self, gauges: Mapping[str, tuple[float, str]]) -> str:
        """All of it; `gauges` are name → (value, what it is) of the moment."""
        counters = {
            "prompt_tokens": (self.prompt_tokens, "Tokens of prompts."),
            "prompt_tokens_cached": (self.cached_tokens, "Tokens of prompts that were known already."),
            "completion_tokens": (self.completion_tokens, "Tokens written."),
            "aborts": (self.aborts, "Completions whose client left."),
            "rejections": (self.rejections, "Requests refused for lack of room."),
        }
        lines: list[str] = []
        for name, (value, what) in counters.items():
            lines += [f"# HELP inkling_{name}_total {what}", f"# TYPE inkling_{name}_total counter"]
            lines.append(f"inkling_{name}_total {value}")
        lines += ["# HELP inkling_responses_total Responses.", "# TYPE inkling_responses_total counter"]
        for (route, status), count in sorted(self.responses.items()):
            lines.append(f'inkling_responses_total{{route="{route}",status="{status}"}} {count}')
        for name, (gauge, what) in gauges.items():
            lines += [f"# HELP inkling_{name} {what}", f"# TYPE inkling_{name} gauge", f"inkling_{name} {gauge}"]
        lines += self.first_token.lines("inkling_time_to_first_token_seconds", "From the request to its first token.")
        lines += self.between_tokens.lines("inkling_time_between_tokens_seconds", "Between two tokens of a completion.")
        return "\n".join(lines) + "\n"
