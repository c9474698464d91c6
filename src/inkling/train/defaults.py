"""What a run does when the user chooses nothing: numbered steps, each printed with its reason.

The rules follow `docs/decisions/`: they are for 1 to 100 MB of text, which is passed over many times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from inkling.errors import ModelError, did_you_mean
from inkling.optim import muon

TOKENS_PER_PARAMETER = 20
MAX_PASSES = 16
MIN_STEPS = 1000
MANY_PASSES = 4.0
"""From here on the regime is that of a text that is read again and again; below, of one that is read about once."""
DROPOUT, AVERAGE_DECAY, PATIENCE = 0.1, 0.99, 5
"""Of the regime of many passes; patience is in evaluations, of which a run has twenty."""
_SIZE_BY_TOKENS = [(2e6, "0.8m"), (12e6, "3m"), (60e6, "10m"), (300e6, "27m"), (float("inf"), "124m")]
MUON_SHARE = 0.6
"""A batch that the user leaves open is enlarged until Muon's own work is below this share of the matrix products."""
MIN_STEPS_FOR_MUON = 300
MEMORISING, STRONG_DECAY = 10.0, 1.2
"""From so many parameters for each token of a text that is read again and again on, the weights decay faster."""


@dataclass(frozen=True)
class Horizon:
    """How long a run is and in what portions.

    Attributes:
        batch_size: Sequences per step.
        steps: None when the run is limited by time.
        tokens: Tokens that it will train on, estimated when it is limited by time.
        reasons: The derivation, line by line.
    """

    batch_size: int
    steps: int | None
    tokens: float
    passes: float
    reasons: list[str]


def choose_size(size: str, known_sizes: list[str], num_tokens: int) -> tuple[str, str]:
    """The named size, and why. Raises ModelError for an unknown one."""
    if size != "auto":
        if size not in known_sizes:
            raise ModelError(f"there is no size {size!r}{did_you_mean(size, known_sizes)}. Run: inkling models")
        return size, f"size {size}: as asked"
    chosen = next(name for limit, name in _SIZE_BY_TOKENS if num_tokens < limit)
    return chosen, f"size {chosen}: for {num_tokens / 1e6:.1f} M training tokens"


def choose_horizon(
    *,
    num_parameters: int,
    num_tokens: int,
    context: int,
    batch_size: int | None,
    steps: int | None,
    time_s: float | None,
    tokens_per_s: float | None,
    muon_share: Callable[[int], float],
    mean_share: float = 1.0,
) -> Horizon:
    """Tokens to train on, then the batch, then the steps.

    Args:
        num_tokens: In the training text.
        tokens_per_s: Measured on this machine, where `time_s` limits the run.
        muon_share: Muon's cost beside the matrix products, as a function of the tokens in a step.
        mean_share: Share of a whole batch that a step takes on average, where batches grow.
    """
    reasons = []
    if time_s is not None:
        tokens = time_s * (tokens_per_s or 0.0)
        reasons.append(f"horizon: {time_s:.0f} s, about {tokens / 1e6:.1f} M tokens at the speed measured here")
    elif steps is not None and batch_size is not None:
        tokens = steps * batch_size * context * mean_share
    else:
        tokens = float(min(TOKENS_PER_PARAMETER * num_parameters, MAX_PASSES * num_tokens))
        asked = "" if steps is None else f"{steps:,} steps, as asked, in batches for "
        reasons.append(
            f"horizon: {asked}{tokens / 1e6:.1f} M tokens, the less of {TOKENS_PER_PARAMETER} per parameter and "
            f"{MAX_PASSES} passes"
        )
    if batch_size is None:
        # The best batch grows as tokens^0.383 (measured for nanochat); a floor on the number of steps binds small runs.
        # More steps than that share the same tokens; fewer are the beginning of such a run, not a few huge ones.
        law = 81_000 * (tokens / 10e6) ** 0.383
        batch_size = max(4, _power_of_two(min(law, tokens / max(steps or 0, MIN_STEPS)) / context))
        while (
            muon_share(batch_size * context) > MUON_SHARE and tokens / (2 * batch_size * context) >= MIN_STEPS_FOR_MUON
        ):
            batch_size *= 2
        batch_size = min(batch_size, max(1, num_tokens // context))
        reasons.append(f"batch: {batch_size} × {context} = {batch_size * context:,} tokens a step")
    if steps is None and time_s is None:
        steps = max(1, round(tokens / (batch_size * context * mean_share)))
        reasons.append(f"steps: {steps:,}")
    if steps is not None:
        tokens = steps * batch_size * context * mean_share
    passes = tokens / max(num_tokens, 1)
    reasons.append(f"passes over the text: {passes:.1f}")
    return Horizon(batch_size, steps, tokens, passes, reasons)


@dataclass(frozen=True)
class Regime:
    """What keeps a run from learning its text by heart.

    Attributes:
        average_decay: Of the moving average of the weights; 0 keeps none.
        patience: Evaluations without a better one after which the run ends; 0 never ends it.
        reasons: The choices, line by line.
    """

    dropout: float
    average_decay: float
    patience: int
    reasons: list[str]


def choose_regime(passes: float, *, dropout: float | None, average_decay: float | None, patience: int | None) -> Regime:
    """One pass or many, from the passes over the text; what is given stays. Measured in docs/decisions/."""
    many = passes >= MANY_PASSES
    regime = f"many passes ({passes:.0f})" if many else "hardly any text is seen twice"

    def said(what: str, asked: float | None) -> str:
        return f"{what}: {regime if asked is None else 'as asked'}"

    def default(asked: float | None, value: float) -> float:
        return asked if asked is not None else value if many else 0.0

    dropout_, decay = default(dropout, DROPOUT), default(average_decay, AVERAGE_DECAY)
    evaluations = int(default(patience, PATIENCE))
    return Regime(
        dropout_,
        decay,
        evaluations,
        [
            said(f"dropout {dropout_:g}", dropout),
            said(
                f"average of the weights, {decay:g} kept a step" if decay else "no average of the weights",
                average_decay,
            ),
            said(
                f"stop after {evaluations} evaluations without a better" if evaluations else "no early stop", patience
            ),
        ],
    )


def choose_weight_decay(passes: float, parameters_per_token: float, asked: float | None) -> tuple[float, str]:
    """Muon's weight decay, and why: more where a model is large enough to know its text by heart."""
    if asked is not None:
        return asked, f"weight decay {asked:g}: as asked"
    size = f"{parameters_per_token:.2g} parameters for each token of the text"
    if passes >= MANY_PASSES and parameters_per_token >= MEMORISING:
        return STRONG_DECAY, f"weight decay {STRONG_DECAY:g}: many passes, and {size}"
    return muon.WEIGHT_DECAY, f"weight decay {muon.WEIGHT_DECAY:g}: the usual, for {size}"


def choose_optimizer(name: str, muon_share: float) -> tuple[str, str]:
    """muon or adamw, and why; `muon_share` is Muon's cost beside the model's own matrix products."""
    cost = f"Muon's own work is {muon_share:.0%} of the block matrix products"
    if name != "auto":
        return name, f"optimizer {name}: as asked ({cost})"
    chosen = "muon" if muon_share < 1 else "adamw"
    return chosen, f"optimizer {chosen}: {cost}"


def _power_of_two(value: float) -> int:
    """The nearest power of two on a logarithmic scale, at least 1."""
    return 1 << max(0, round(value).bit_length() - 1)
