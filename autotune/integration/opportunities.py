"""What another configuration of the same backend would gain, by prediction."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from autotune.domain.errors import AutotuneError
from autotune.domain.prediction import Hardware, Recommendation, Target
from autotune.domain.units import human_seconds
from autotune.domain.workload import Workload
from autotune.integration.knowledge import Knowledge
from autotune.integration.settings import sensible_config
from autotune.recommend.candidates import search_space
from autotune.recommend.choose import recommend
from autotune.store.usage import Usage

_log = logging.getLogger(__name__)
_REQUEST = Workload(n_prompt=512, n_gen=128)
_WORTH_RATIO = 1.05
_LOOKED_AT = 3
"""Models, the latest used ones, whose possible gain is looked for."""


def find_opportunities(
    usages: Sequence[Usage],
    knowledge: Knowledge,
    *,
    available_bytes: int,
    environ: Mapping[str, str],
) -> list[str]:
    """A line for each of the latest models that could answer a request 5 % faster, or more."""
    newest: dict[str, Usage] = {}
    for usage in usages:
        if usage.reason is None and usage.model_path and usage.model_path.is_file():
            newest.setdefault(usage.model_id, usage)
    lines = []
    for usage in list(newest.values())[:_LOOKED_AT]:
        try:
            gain, best = _gain(knowledge, usage, available_bytes=available_bytes, environ=environ)
        except AutotuneError as error:
            _log.info("%s: %s", usage.model_name, error)
            continue
        if gain >= _WORTH_RATIO:
            lines.append(_line(usage, gain, best))
    return lines


def _gain(
    knowledge: Knowledge, used: Usage, *, available_bytes: int, environ: Mapping[str, str]
) -> tuple[float, Recommendation]:
    """(request time of what was used over that of the best configuration, that configuration).

    Backend and context stay as they were used. Raises NothingFitsError.
    """
    assert used.model_path is not None
    subject = knowledge.subject(used.model_path)
    default = sensible_config(
        used.backend, subject.machine, n_ctx=used.config.n_ctx, environ=environ
    )
    space = search_space(
        subject.model,
        subject.machine,
        default=default,
        workload=_REQUEST,
        hardware=Hardware.AUTO,
    )
    predictor = knowledge.predictor(subject.api)
    best = recommend(
        predictor,
        subject.cases(used.backend, space.configs(), _REQUEST),
        target=Target.BALANCED,
        default=used.config,
        available_bytes=available_bytes,
    )
    case = subject.case(used.backend, used.config, _REQUEST)
    return predictor.forecast([case]).prediction(0).request_s / best.prediction.request_s, best


def _line(usage: Usage, gain: float, best: Recommendation) -> str:
    changes = best.config.differences(usage.config)
    knobs = " ".join(f"{name}={ours}" for name, (ours, _) in changes.items())
    return (
        f"{usage.model_name} on {usage.backend}: {knobs} answers a request in "
        f"{human_seconds(best.prediction.request_s)}, {gain:.2f}× the speed of what was used "
        f"last, by prediction; autotune tune {usage.model_path} proves it"
    )
