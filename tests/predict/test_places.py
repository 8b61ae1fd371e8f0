"""Places and what they do to an engine, on data whose truth is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autotune.domain.machine import GPUFacts, MachineFacts
from autotune.domain.study import Observation
from autotune.features.case import Case
from autotune.features.columns import build_features
from autotune.predict.place_effects import PlaceEffects, Whereabouts, locate
from autotune.predict.places import WIDTHS, device_name, flavour_of
from autotune.predict.predictor import Predictor
from autotune.predict.rows import subjects_of
from tests.predict.strangers import strangers
from tests.simulation import make_cases, scaled_model, simulate


def make_places(
    builds: list[str], families: list[str] | np.ndarray, *, loading: float = 1.0
) -> Whereabouts:
    """Of rows on ``DEVICE BUILD`` each, at one length."""
    split = [name.split() for name in builds]
    n = len(builds)
    return Whereabouts(
        names=np.array(
            [
                [d, f"{d}/0", d, f"{d}/{b}", f"{d}/{b}", f"{d}/fa", f"{d}/dense", d, f"{d}/2"]
                for d, b in split
            ]
        ),
        families=np.array(families),
        length=np.zeros(n, dtype=np.intp),
        index=np.arange(n),
        loading=np.full((n, 9), loading) * ([1] * 8 + [0]),
        sd=(1.0,) * 9,
    )


def fit_places(where: Whereabouts, residual: np.ndarray) -> PlaceEffects:
    """Learned of these."""
    return PlaceEffects.fit(where, residual, devices=where.names[:, 0])


def test_a_place_is_what_its_other_families_say() -> None:
    """Two families at +0.4 speak for a third, and less for another build; none for itself."""
    places = make_places(["fast 1", "fast 1", "fast 1", "slow 1"], ["a", "b", "c", "a"])
    effects = fit_places(places, np.array([0.4, 0.4, 9.9, 0.0]))

    here, next_build = effects.total(make_places(["fast 1", "fast 2"], ["c", "c"]))

    assert 0.2 < next_build < here < 0.4
    assert effects.total(places)[3] == 0


def test_what_nobody_told_of_a_place_is_doubted() -> None:
    """All of a device that a family ran on alone; of one with others, the new build at most."""
    random = np.random.default_rng(3)
    families = np.repeat(["a", "b", "c"], 20)
    places = make_places(["shared 1"] * 40 + ["alone 1"] * 20, families)
    effects = fit_places(places, random.normal(scale=0.1, size=60))
    new = ["shared 1", "shared 2", "alone 1", "nowhere 1"]

    of_new, of_a, of_c = (
        effects.doubt(make_places(new, [family] * 4)) for family in ("new", "a", "c")
    )

    assert of_new[0] == of_a[0] == of_c[0] == 0
    assert 0 < of_new[1] < of_new[3]
    assert of_new[2] == of_a[2] == 0
    assert of_c[2] == of_c[3] == of_new[3]


def test_what_others_say_is_what_they_say_alone() -> None:
    """Leaving a family out of what was learned is as good as never having met it."""
    random = np.random.default_rng(1)
    families = random.choice(list("abcd"), 60)
    builds = np.array([f"gpu {n}" for n in random.integers(0, 4, 60)])
    residual = random.normal(size=60)
    known, asked = families != "c", make_places(builds, ["c"] * 60)

    told = fit_places(make_places(builds, families), residual).total(asked)
    alone = fit_places(make_places(builds[known], families[known]), residual[known])

    assert told == pytest.approx(alone.total(asked))


def test_a_build_that_met_slow_models_is_not_a_slow_build() -> None:
    """Two builds are alike on the one family that ran with both; the others ran with one each."""
    builds = make_places([f"gpu {n}" for n in (1, 1, 2, 2, 1, 2)], list("abcdee"))
    effects = fit_places(builds, np.array([1.0, 1.0, -1.0, -1.0, 0.0, 0.0]))

    slow, fast = effects.total(make_places(["gpu 1", "gpu 2"], ["new", "new"]))

    # Without effects of families: 0.57 and -0.57.
    assert 0 < slow - fast < 0.8


def test_the_next_number_of_a_flavour_is_like_the_last() -> None:
    """What a build is called but for its number; a version without a number is itself."""
    assert flavour_of("6077 llama.cpp-hip") == flavour_of("5863 llama.cpp-hip") == "llama.cpp-hip"
    assert flavour_of("0.3.16") == "0.3.16"
    assert flavour_of("6077") == flavour_of("") == ""


def test_two_machines_with_one_gpu_are_one_device() -> None:
    """By any name of it; a processor, or a GPU that nobody lists, is its own machine's alone."""
    case = Case.of(strangers()[0])
    assert case is not None

    def device(api: str, *names: str) -> str:
        machine = MachineFacts(cpu="", gpus=tuple(GPUFacts(name=name) for name in names))
        return device_name(dataclasses.replace(case, machine=machine, machine_id="mine", api=api))

    assert device("CUDA", "NVIDIA GeForce RTX 3090") == "RTX 3090"
    assert device("Vulkan", "NVIDIA GeForce RTX 3090 (driver 570)") == "RTX 3090"
    assert device("CPU", "NVIDIA GeForce RTX 3090") == "mine"
    assert device("CUDA", "NVIDIA Something New") == "mine"


def test_where_a_family_ran_alone_its_next_model_is_on_a_new_device() -> None:
    """What the family itself did there says nothing of it: as much is known as where nobody ran."""
    everything = [o for o in strangers() if o.prefill_tps]
    first = [o for o in everything if o.machine_id == everything[0].machine_id]
    alone = [o for o in first if o.model.architecture == "gemma2"]

    def on(observation: Observation, card: str) -> Observation:
        machine = MachineFacts(cpu="", gpus=(GPUFacts(name=card),))
        return dataclasses.replace(observation, machine=machine, machine_id=card)

    def doubt(card: str) -> float:
        cases = [case for o in alone if (case := Case.of(on(o, card)))]
        model = dataclasses.replace(cases[0].model, model_id="another")
        asked = [dataclasses.replace(case, model=model) for case in cases]
        return float(np.mean(predictor.forecast(asked).prefill.sd))

    here, nowhere = "NVIDIA GeForce RTX 3070", "NVIDIA GeForce RTX 3080"
    predictor = Predictor().fit([*everything, *(on(o, here) for o in alone)])

    assert doubt(here) == pytest.approx(doubt(nowhere), rel=0.1)


def test_an_unknown_place_has_no_effect() -> None:
    """Nothing is known of it."""
    effects = fit_places(make_places(["gpu 1"], ["a"]), np.array([0.5]))

    assert effects.total(make_places(["new 1"], ["b"])) == 0


def test_many_runs_of_one_family_are_still_one_family() -> None:
    """What it does with ten builds of an interface may be its own: half of it is believed."""
    once = fit_places(make_places(["gpu 1"], ["a"]), np.array([0.5]))
    often = fit_places(make_places([f"gpu {n}" for n in range(10)], ["a"] * 10), np.full(10, 0.5))
    asked = make_places(["gpu 99"], ["new"])

    assert 0 < once.total(asked) < often.total(asked) < 0.5 * 0.5


def test_what_attention_does_is_felt_by_its_share() -> None:
    """A prompt of which four times as much is attention feels twice what its kernels do."""
    cases = [case for o in strangers() if (case := Case.of(o)) and case.workload.n_prompt == 2048]
    share = build_features(cases).roofline.attention_share

    where = locate("prefill", build_features(cases).x["prefill"], subjects_of(cases))
    by_attention = np.array([width.by_attention for width in WIDTHS])
    felt = where.loading[:, by_attention]

    assert np.ptp(share) > 0
    assert felt == pytest.approx(np.sqrt(share / 0.03)[:, None] * [1, 1])
    by_threads = np.array([width.by_threads for width in WIDTHS])
    assert (where.loading[:, ~by_attention & ~by_threads] == 1).all()
    assert (where.loading[:, by_threads] == 0).all(), "a GPU computes"


def test_what_is_felt_twice_counts_twice() -> None:
    """Of an effect that others felt at a loading of 1."""
    places = make_places(["gpu 1"] * 3, ["a", "b", "c"])
    effects = fit_places(places, np.array([0.4, 0.5, 0.6]))

    once, twice = (effects.total(make_places(["gpu 1"], ["new"], loading=x)) for x in (1.0, 2.0))

    assert 0 < once < 0.5
    assert twice == pytest.approx(2 * once)


def test_only_a_prompt_has_other_places_at_each_length() -> None:
    """The narrow ones."""
    cases = [case for o in strangers()[:1] if (case := Case.of(o))]
    table = build_features(cases)
    prefill, decode = (locate(p, table.x[p], subjects_of(cases)) for p in ("prefill", "decode"))

    assert list(decode.names[0, :8]) == list(subjects_of(cases).places[0, :8])
    assert list(prefill.names[0, :3]) == list(decode.names[0, :3])
    at_length = [f"{name}/{prefill.length[0]}" for name in decode.names[0, 3:8]]
    assert list(prefill.names[0, 3:8]) == at_length
    assert (prefill.sd, decode.sd) == ((2.0,) * 9, (2.0,) * 3 + (1.0,) * 5 + (2.0,))


def test_each_processor_has_its_own_way_with_threads() -> None:
    """One thread saturates the first one's memory and not the second's: the others' models tell."""
    families = [scaled_model(f"{size}M", size) for size in (40, 60, 90, 140)]
    random = np.random.default_rng(0)

    def seconds_more(case: Case) -> float:
        """Log slowdown with one thread; as much speed on the other machine."""
        return (0.25 if case.machine_id == "m" else -0.25) * (case.config.n_threads == 1)

    def observed(case: Case, observation: Observation) -> Observation:
        noise = random.normal(scale=0.02)
        rate = (observation.decode_tps or 0) * np.exp(noise - seconds_more(case))
        return dataclasses.replace(observation, decode_tps=float(rate))

    cases = {
        family.name: [
            dataclasses.replace(case, machine_id=machine)
            for machine in ("m", "n")
            for case in make_cases(family)[::7]
        ]
        for family in families
    }
    *known, asked = (list(told) for told in cases.values())
    taught = [observed(c, o) for told in known for c, o in zip(told, simulate(told), strict=True)]
    truth = [
        np.log(1 / (o.decode_tps or 1)) + seconds_more(c)
        for c, o in zip(asked, simulate(asked), strict=True)
    ]

    error = Predictor().fit(taught).forecast(asked).decode.mean - truth

    one = np.array([case.config.n_threads == 1 for case in asked])
    assert one.any()
    assert abs(np.median(error[one])) < 0.08
    assert np.abs(error).max() < 0.2


def test_builds_differ_by_what_places_tell() -> None:
    """No tree blurs it: a new model's two forecasts lie as far apart as the builds' places."""
    old = [o for o in strangers() if o.prefill_tps]
    new = [dataclasses.replace(o, build="200", prefill_tps=1.1 * o.prefill_tps) for o in old]
    unseen = "llama-8B-Q4_0"
    predictor = Predictor().fit([o for o in (*old, *new) if o.model.name != unseen])
    cases = [c for o in old if o.model.name == unseen and (c := Case.of(o))]

    before, after = (
        predictor.forecast([dataclasses.replace(c, build=build) for c in cases]).prefill.mean
        for build in (cases[0].build, "200")
    )

    assert (before - after > 0.02).all()
    assert before - after == pytest.approx(np.log(1.1), abs=0.05)


def test_a_build_that_is_fast_at_one_length_is_so_there() -> None:
    """Five families say that it reads 2,048 tokens three times as fast, 128 three times slower."""
    factors = {128: 1 / 3, 512: 1, 2048: 3}
    old = [o for o in strangers() if o.prefill_tps]
    new = [
        dataclasses.replace(
            o, build="200", prefill_tps=o.prefill_tps * factors[o.workload.n_prompt]
        )
        for o in old
    ]
    unseen = "llama-8B-Q4_0"
    predictor = Predictor().fit([o for o in (*old, *new) if o.model.name != unseen])

    def log_seconds(build: str, n_prompt: int) -> np.ndarray:
        asked = [o for o in new if o.model.name == unseen and o.workload.n_prompt == n_prompt]
        cases = [c for o in asked if (c := Case.of(dataclasses.replace(o, build=build)))]
        return predictor.forecast(cases).prefill.mean

    for n_prompt, factor in factors.items():
        gain = np.exp(np.mean(log_seconds("100", n_prompt) - log_seconds("200", n_prompt)))
        assert gain == pytest.approx(factor, rel=0.15)
