"""Who wins among the measured: the fastest, or one that is plainer and as likely as fast."""

from __future__ import annotations

import numpy as np

from autotune.domain.config import Config
from autotune.domain.limits import Limits
from autotune.domain.run import Run
from autotune.domain.workload import Workload
from autotune.tune.ledger import Ledger
from tests.factories import make_generation, make_run, make_trial
from tests.simulation import DEFAULT, make_subject

NO_LIMITS = Limits()
PLAIN = DEFAULT.replace(n_threads=4)
FANCY = DEFAULT.replace(n_threads=4, n_ubatch=64, flash_attn="on")
WORKLOAD = Workload(n_prompt=64, n_gen=4)
ALIKE = np.zeros(3)
"""Log request seconds that all runs together make one expect: none promises more."""


def run(config: Config, request_ms: float, **changes: object) -> Run:
    """A run whose requests take so long."""
    prefill_ns = round(request_ms * 0.5e6)
    generation = make_generation(
        prefill_ns=prefill_ns,
        ttft_ns=prefill_ns,
        token_ns=(round(request_ms * 0.125e6),) * 4,
    )
    generations = (generation,) * 3
    return make_run(trial=make_trial(config=config), generations=generations, **changes)


def ledger(limits: Limits = NO_LIMITS, **request_ms: tuple[float, ...]) -> Ledger:
    """The default, a plain and a fancy candidate, each with its runs."""
    configs = {"default": DEFAULT, "plain": PLAIN, "fancy": FANCY}
    cases = make_subject().cases("simulated", configs.values(), WORKLOAD)
    ledger = Ledger(cases, DEFAULT, limits)
    for index, (name, config) in enumerate(configs.items()):
        for milliseconds in request_ms.get(name, ()):
            ledger.repeat(index, run(config, milliseconds))
    return ledger


def test_without_noise_two_percent_decide() -> None:
    """Within them the plainer one wins, beyond them the faster one."""
    assert ledger(default=(150,), plain=(101.5,), fancy=(100,)).winner(ALIKE) == 1
    assert ledger(default=(150,), plain=(103,), fancy=(100,)).winner(ALIKE) == 2


def test_with_noise_one_more_knob_has_to_earn_its_place() -> None:
    """Processes that differ by 7 % make 5 % as likely luck; after many runs they do not."""
    few = ledger(default=(150,), plain=(105, 105), fancy=(100, 100))
    many = ledger(default=(150,), plain=(105,) * 12, fancy=(100,) * 12)

    assert few.winner(ALIKE, noise_sd=0.07) == 1
    assert many.winner(ALIKE, noise_sd=0.07) == 2
    assert few.winner(ALIKE, noise_sd=0.01) == 2


def test_between_those_that_tie_all_runs_together_decide() -> None:
    """A knob that was faster wherever it was tried is no luck; one that only won here may be."""
    tied = ledger(default=(150,), plain=(103, 103), fancy=(100, 100))
    fancy_promises, plain_promises = np.array([0.4, 0.0, -0.04]), np.array([0.4, -0.04, 0.0])

    assert tied.winner(fancy_promises, noise_sd=0.07) == 2
    assert tied.winner(plain_promises, noise_sd=0.07) == 1
    assert tied.winner(np.array([0.4, 0.0, -0.01]), noise_sd=0.07) == 1, "plainness decides"


def test_of_those_that_are_as_plain_the_smaller_one_wins() -> None:
    """A batch of another size is one change, whatever follows it."""
    configs = (DEFAULT, PLAIN, DEFAULT.replace(n_batch=128, n_ubatch=128))
    tied = Ledger(make_subject().cases("simulated", configs, WORKLOAD), DEFAULT, NO_LIMITS)
    for index, (config, peak) in enumerate(zip(configs, (4, 3, 2), strict=True)):
        tied.repeat(index, run(config, (150, 100, 101)[index], peak_rss_bytes=peak * 2**30))

    assert tied.winner(ALIKE) == 2


def test_a_gain_that_may_be_luck_is_the_defaults() -> None:
    """The default is the plainest of all."""
    assert ledger(default=(103,), fancy=(100,)).winner(ALIKE, noise_sd=0.05) == 0


def test_what_breaks_a_limit_is_no_answer() -> None:
    """However fast, and the default neither; where nothing keeps it, that is known."""
    half_of_150 = Limits(ttft_s=0.075)
    none = ledger(half_of_150, default=(200,), plain=(151,), fancy=(140, 160))
    one = ledger(half_of_150, default=(160,), plain=(149,), fancy=(140, 160))

    assert none.winner(ALIKE) is None
    assert none.best is None
    assert none.breaks_limits
    assert one.winner(ALIKE) == 1
    assert one.finalists(3) == [1]
    assert not one.breaks_limits
