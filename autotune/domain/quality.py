"""What a lossy knob costs in quality: how far it moves the distributions of the next word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotune.domain import stats
from autotune.domain.config import KV_BLOCK_ELEMENTS, LOSSLESS_KV_TYPES, Config
from autotune.domain.errors import ConfigError
from autotune.domain.model import ModelFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityCost:
    """A configuration's next-token distributions Q against the reference's P, over a text.

    0 nats and an agreement of 1 mean that nothing was lost.
    """

    kl_mean: float
    """Mean over the positions of KL(P‖Q) = Σ p·ln(p/q); nats per token."""
    kl_p99: float
    """99th percentile over the positions; nats per token."""
    top1_agreement: float
    """Share of the positions at which both hold the same token for the likeliest."""
    n_tokens: int
    """Positions compared."""

    @classmethod
    def of(cls, kl: Sequence[float], agrees: Sequence[bool]) -> QualityCost:
        """The summary of divergences in nats and of agreements, one each for a position."""
        return cls(
            kl_mean=stats.mean(kl),
            kl_p99=stats.quantile(kl, 0.99),
            top1_agreement=sum(agrees) / len(agrees),
            n_tokens=len(kl),
        )


def reference_of(config: Config) -> Config:
    """The configuration that another is judged against: its cache in f16, all else equal."""
    return config.replace(type_k="f16", type_v="f16")


def require_cacheable(model: ModelFacts, config: Config) -> None:
    """Raises ConfigError where blocks of a cache type do not fit into the model's heads."""
    heads = {
        "type_k": (model.key_length, model.key_length_sliding),
        "type_v": (model.value_length, model.value_length_sliding),
    }
    for knob, lengths in heads.items():
        odd = [length for length in lengths if length % KV_BLOCK_ELEMENTS]
        if odd and getattr(config, knob) not in LOSSLESS_KV_TYPES:
            raise ConfigError(
                f"{knob}={getattr(config, knob)} packs blocks of {KV_BLOCK_ELEMENTS} elements, "
                f"which do not divide this model's heads of {odd[0]}: use {knob}=f16"
            )
