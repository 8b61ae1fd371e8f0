"""What stored uses say that somebody could act on."""

from __future__ import annotations

import pytest

from autotune.domain.conditions import Contamination
from autotune.domain.run import Reason
from autotune.integration.insights import find_best_backends, find_bottlenecks, find_trends
from autotune.integration.profiles import profiles_of, typical
from tests.integration.usages import make_usage


def series(*rates: float, **changes: object) -> list[object]:
    """Newest first, as the store gives them; the rates are told oldest first."""
    return [make_usage(decode_tps=rate, **changes) for rate in reversed(rates)]


def test_nothing_is_said_of_nothing() -> None:
    """Empty lists, no invented advice."""
    assert find_trends([]) == find_best_backends([]) == []
    assert find_bottlenecks([], ram_bytes=None) == []


@pytest.mark.parametrize(
    ("rates", "said"),
    [((60, 60, 45, 45), "-25%"), ((45, 45, 60, 60), "+33%"), ((50, 51, 49, 50), ""), ((9, 1), "")],
)
def test_a_trend_is_a_change_of_a_tenth_over_four_runs(rates: tuple[float, ...], said: str) -> None:
    """Noise is no trend, and two runs are no series."""
    found = find_trends(series(*rates))

    assert [said in line for line in found] == ([True] if said else [])


def test_a_spoilt_or_reported_run_is_no_trend() -> None:
    """A busy neighbour would look like a regression."""
    spoilt = {"contamination": (Contamination.FOREIGN_CPU,)}

    assert find_trends([*series(45, 45, **spoilt), *series(60, 60)]) == []
    assert find_trends([*series(45, 45, is_reported=True), *series(60, 60)]) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"load_s": 12.0}, "loads in 12 s; put the file"),
        ({"decode_tps": 3.0}, "3 tok/s generated; use a smaller"),
        ({"reason": Reason.OOM, "success_ratio": 0.0}, "100% of 1 uses failed; mostly oom: lower"),
        ({"memory_bytes": 95 * 2**20}, "95 MiB is 95% of the memory; lower context_size"),
        ({"contamination": (Contamination.SWAP,)}, "1 of 1 runs were spoilt (swap)"),
    ],
)
def test_each_bottleneck_has_its_number_and_its_cure(changes: dict[str, object], said: str) -> None:
    """One thing at a time; an ordinary run has none."""
    (line,) = find_bottlenecks(
        [make_usage(**{"memory_bytes": 1, **changes})], ram_bytes=100 * 2**20
    )
    assert said in line
    assert find_bottlenecks([make_usage(memory_bytes=1)], ram_bytes=100 * 2**20) == []


def test_the_faster_of_two_backends_is_recommended() -> None:
    """With the ratio; a difference within the noise is none."""
    server = make_usage(backend="llama-server", decode_tps=75.0)

    assert find_best_backends([server, make_usage()]) == [
        "tiny: use llama-server, 75 tok/s, 1.50× the rate of llama-cpp-python"
    ]
    assert find_best_backends([make_usage(backend="llama-server"), make_usage()]) == []


def test_what_was_measured_clean_is_not_mixed_with_anything_else() -> None:
    """Clean before spoilt before told; zeros are never in it."""
    clean = make_usage(decode_tps=50.0)
    spoilt = make_usage(decode_tps=5.0, contamination=(Contamination.FOREIGN_CPU,))
    told = make_usage(decode_tps=500.0, is_reported=True, contamination=(Contamination.REPORTED,))
    unknown = make_usage(decode_tps=None)

    assert typical([unknown, told], "decode_tps") == 500.0
    assert typical([unknown, told, spoilt], "decode_tps") == 5.0
    assert typical([unknown, told, spoilt, clean], "decode_tps") == 50.0
    assert typical([unknown], "decode_tps") is None


def test_a_profile_counts_every_use() -> None:
    """An application's mean over three uses counts three times."""
    usages = [make_usage(), make_usage(success_ratio=0.0, reason=Reason.CRASH),
              make_usage(is_reported=True, n_uses=3, success_ratio=1.0)]  # fmt: skip

    profile = profiles_of(usages)["llama-cpp-python"]

    assert (profile.usage_count, profile.reported_count) == (5, 3)
    assert profile["success_rate"] == pytest.approx(0.8)
    assert dict(profile) == profile.to_dict()
