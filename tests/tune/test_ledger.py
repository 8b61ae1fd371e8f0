"""Who wins among the measured: the fastest, or one that is plainer and as likely as fast."""

from __future__ import annotations

from autotune.domain.config import Config
from autotune.domain.run import Run
from autotune.domain.workload import Workload
from autotune.tune.ledger import Ledger
from tests.factories import make_generation, make_run, make_trial
from tests.simulation import DEFAULT, make_subject

PLAIN = DEFAULT.replace(n_threads=4)
FANCY = DEFAULT.replace(n_threads=4, n_ubatch=64, flash_attn="on")
WORKLOAD = Workload(n_prompt=64, n_gen=4)


def run(config: Config, request_ms: float) -> Run:
    """A run whose requests take so long."""
    generation = make_generation(
        prefill_ns=round(request_ms * 0.5e6), token_ns=(round(request_ms * 0.125e6),) * 4
    )
    return make_run(trial=make_trial(config=config), generations=(generation,) * 3)


def ledger(**request_ms: tuple[float, ...]) -> Ledger:
    """The default, a plain and a fancy candidate, each with its runs."""
    configs = {"default": DEFAULT, "plain": PLAIN, "fancy": FANCY}
    cases = make_subject().cases("simulated", configs.values(), WORKLOAD)
    ledger = Ledger(cases, DEFAULT)
    for index, (name, config) in enumerate(configs.items()):
        for milliseconds in request_ms.get(name, ()):
            ledger.repeat(index, run(config, milliseconds))
    return ledger


def test_without_noise_two_percent_decide() -> None:
    """Within them the plainer one wins, beyond them the faster one."""
    assert ledger(default=(150,), plain=(101.5,), fancy=(100,)).winner() == 1
    assert ledger(default=(150,), plain=(103,), fancy=(100,)).winner() == 2


def test_with_noise_one_more_knob_has_to_earn_its_place() -> None:
    """Processes that differ by 7 % make 5 % as likely luck; after many runs they do not."""
    few = ledger(default=(150,), plain=(105, 105), fancy=(100, 100))
    many = ledger(default=(150,), plain=(105,) * 12, fancy=(100,) * 12)

    assert few.winner(noise_sd=0.07) == 1
    assert many.winner(noise_sd=0.07) == 2
    assert few.winner(noise_sd=0.01) == 2


def test_a_gain_that_may_be_luck_is_the_defaults() -> None:
    """The default is the plainest of all."""
    assert ledger(default=(103,), fancy=(100,)).winner(noise_sd=0.05) == 0
