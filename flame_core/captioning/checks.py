"""Quality gates of a trained captioner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flame_core import gates
from flame_core.params import CaptionLMParams


def captioner_checks(
    scores: Mapping[str, float], losses: Sequence[float], llm_unchanged: bool, chosen: CaptionLMParams
) -> list[gates.Check]:
    """Checks of the figures of held-out pictures and of the losses by step."""
    limits, (first, last) = chosen.gates, ends(losses)
    gain = scores["loss_of_others"] - scores["loss"]
    return [
        gates.Check(
            "captioner_llm_unchanged", llm_unchanged, "the LLM has the same weights after training", value=llm_unchanged
        ),
        gates.Check(
            "captioner_learned",
            last / first < limits.max_loss_ratio,
            "mean loss of the last twentieth of the steps over that of the first",
            value=last / first,
            threshold=limits.max_loss_ratio,
        ),
        gates.Check(
            "captioner_looks",
            gain > limits.min_gain,
            "nats per token by which a held-out caption is likelier behind the prompts of its own picture",
            value=gain,
            threshold=limits.min_gain,
            blocking=False,
        ),
        gates.Check(
            "captions_differ",
            scores["distinct"] >= limits.min_distinct,
            "share of different texts among those written for held-out pictures",
            value=scores["distinct"],
            threshold=limits.min_distinct,
            blocking=False,
        ),
    ]


def ends(losses: Sequence[float]) -> tuple[float, float]:
    """Mean loss over the first and the last twentieth of the steps."""
    window = max(1, len(losses) // 20)
    return sum(losses[:window]) / window, sum(losses[-window:]) / window
