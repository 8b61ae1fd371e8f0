"""What spoils a measurement, and what does not."""

from __future__ import annotations

import pytest

from autotune.domain.conditions import Conditions, Contamination
from tests.factories import make_generation, make_run


@pytest.mark.parametrize(
    ("conditions", "contamination"),
    [
        (Conditions(), ()),
        (Conditions(foreign_cpu_ratio=0.05), ()),
        (Conditions(foreign_cpu_ratio=0.051), (Contamination.FOREIGN_CPU,)),
        (Conditions(throttle=()), ()),
        (Conditions(throttle=("sw_power_cap", "applications_clocks_setting")), ()),
        (Conditions(throttle=("cpu_thermal",)), (Contamination.THROTTLED,)),
        (Conditions(throttle=("hw_slowdown", "sw_power_cap")), (Contamination.THROTTLED,)),
        (Conditions(clock_ratio=0.91), ()),
        (Conditions(clock_ratio=0.89), (Contamination.CLOCK_DROP,)),
        (Conditions(swapped_bytes=4096), ()),
        (Conditions(swapped_bytes=2**21), (Contamination.SWAP,)),
        (
            Conditions(foreign_cpu_ratio=0.5, swapped_bytes=2**21),
            (Contamination.FOREIGN_CPU, Contamination.SWAP),
        ),
    ],
)
def test_a_closed_set_of_things_spoils_a_sample(
    conditions: Conditions, contamination: tuple[Contamination, ...]
) -> None:
    """What nobody saw spoils nothing; a power cap that holds for every run alike neither."""
    assert conditions.contamination == contamination


def test_a_clock_is_held_against_the_usual_clock_of_the_run() -> None:
    """The median of the samples until then, this one included: one slow start is no yardstick."""
    earlier = [Conditions(cpu_mhz=mhz) for mhz in (2000.0, 4000.0, 4000.0)]

    assert Conditions(cpu_mhz=4000.0).held_against(earlier).clock_ratio == pytest.approx(1)
    dropped = Conditions(cpu_mhz=3000.0).held_against(earlier)
    assert dropped.clock_ratio == pytest.approx(3000 / 3500)
    assert dropped.contamination == (Contamination.CLOCK_DROP,)


def test_the_clock_that_fell_further_counts() -> None:
    """Processor or GPU; without either there is nothing to say."""
    earlier = [Conditions(cpu_mhz=4000.0, gpu_clock_mhz=2000.0)] * 2

    hot = Conditions(cpu_mhz=4000.0, gpu_clock_mhz=1500.0).held_against(earlier)
    assert hot.clock_ratio == pytest.approx(0.75)
    assert Conditions().held_against(earlier).clock_ratio is None
    assert Conditions(cpu_mhz=4000.0).held_against([]).clock_ratio == 1


DIRTY = Conditions(foreign_cpu_ratio=0.5)


def samples(*decode_ms: int, dirty: int = 0) -> tuple:
    """Samples of one token each, the last ``dirty`` of them contaminated."""
    n_clean = len(decode_ms) - dirty
    return tuple(
        make_generation(
            repetition=i,
            token_ns=(ms * 1_000_000,),
            conditions=Conditions() if i < n_clean else DIRTY,
        )
        for i, ms in enumerate(decode_ms)
    )


def test_a_summary_is_over_the_clean_samples() -> None:
    """What others slowed down is kept in the record, and never averaged in."""
    run = make_run(generations=samples(10, 10, 10, 200, 200, 200, 200, dirty=4))

    assert run.measurement is not None
    assert run.measurement.decode_tps is not None
    assert run.measurement.decode_tps.median == pytest.approx(100)
    assert run.measurement.decode_tps.n == 3
    assert not run.is_contaminated


def test_a_run_with_too_few_clean_samples_is_marked() -> None:
    """Its summary is over the clean ones all the same, as long as there is one."""
    run = make_run(generations=samples(10, 10, 200, 200, dirty=2))

    assert run.contamination == (Contamination.FOREIGN_CPU,)
    assert run.measurement is not None
    assert run.measurement.decode_tps is not None
    assert run.measurement.decode_tps.median == pytest.approx(100)


def test_a_run_without_clean_samples_says_what_it_saw() -> None:
    """Marked, and the best that is known."""
    run = make_run(generations=samples(200, 210, 220, dirty=3))

    assert run.is_contaminated
    assert run.measurement is not None
    assert run.measurement.decode_tps is not None
    assert run.measurement.decode_tps.n == 3
