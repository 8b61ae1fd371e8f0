"""Places, processes and calibration, each on data whose truth is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autotune.domain.machine import GPUFacts, MachineFacts
from autotune.domain.study import Observation
from autotune.facts.devices import bandwidth_spread
from autotune.features.case import Case
from autotune.features.columns import build_features
from autotune.predict.calibration import Calibration, tier_of, weighted_quantile
from autotune.predict.ensemble import deal_folds, fit_linear
from autotune.predict.place_effects import PlaceEffects, Whereabouts, locate
from autotune.predict.places import WIDTHS, device_name, flavour_of
from autotune.predict.predictor import Predictor
from autotune.predict.process import Kernel, Process
from autotune.predict.rows import subjects_of
from autotune.predict.typical import typical_of
from tests.predict.strangers import strangers

KERNEL = Kernel(offset_sd=0.3, shape_sd=0.1, interface_sd=0.2, build_sd=0.1, length_scale=2.0)
HERE = np.array([["m/CUDA", "m/CUDA/1"]])
"""Interface and build."""


def make_places(
    builds: list[str], families: list[str] | np.ndarray, *, loading: float = 1.0
) -> Whereabouts:
    """Of rows on ``DEVICE BUILD`` each, at one length."""
    split = [name.split() for name in builds]
    n = len(builds)
    return Whereabouts(
        names=np.array(
            [[d, f"{d}/0", d, f"{d}/{b}", f"{d}/{b}", f"{d}/fa", f"{d}/dense", d] for d, b in split]
        ),
        families=np.array(families),
        length=np.zeros(n, dtype=np.intp),
        index=np.arange(n),
        loading=np.full((n, 8), loading),
        sd=(1.0,) * 8,
    )


def fit_places(where: Whereabouts, residual: np.ndarray) -> PlaceEffects:
    """Learned of these."""
    return PlaceEffects.fit(where, residual, devices=where.names[:, 0])


def test_a_place_is_what_its_other_families_say() -> None:
    """Two families at +0.4 speak for a third, and less for another build; none for itself."""
    places = make_places(["fast 1", "fast 1", "fast 1", "slow 1"], ["a", "b", "c", "a"])
    effects = fit_places(places, np.array([0.4, 0.4, 9.9, 0.0]))

    here, next_build = effects.column(make_places(["fast 1", "fast 2"], ["c", "c"]))

    assert 0.2 < next_build < here < 0.4
    assert effects.column(places)[3] == 0


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

    told = fit_places(make_places(builds, families), residual).column(asked)
    alone = fit_places(make_places(builds[known], families[known]), residual[known])

    assert told == pytest.approx(alone.column(asked))


def test_a_build_that_met_slow_models_is_not_a_slow_build() -> None:
    """Two builds are alike on the one family that ran with both; the others ran with one each."""
    builds = make_places([f"gpu {n}" for n in (1, 1, 2, 2, 1, 2)], list("abcdee"))
    effects = fit_places(builds, np.array([1.0, 1.0, -1.0, -1.0, 0.0, 0.0]))

    slow, fast = effects.column(make_places(["gpu 1", "gpu 2"], ["new", "new"]))

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


def test_devices_that_disagree_say_little_of_the_next_one() -> None:
    """Four GPUs far apart: a fifth is expected to be typical, not anywhere from 1 to 100000."""
    everything = strangers()
    factors = dict(zip(sorted({o.machine_id for o in everything}), (0.1, 0.1, 3, 3), strict=True))
    apart = [
        dataclasses.replace(o, prefill_tps=o.prefill_tps * factors[o.machine_id])
        for o in everything
        if o.prefill_tps
    ]
    machine = MachineFacts(cpu="", gpus=(GPUFacts(name="NVIDIA GeForce RTX 3070"),))
    asked = [
        dataclasses.replace(case, machine=machine, machine_id="new")
        for o in apart[:3]
        if (case := Case.of(o))
    ]

    told, typical = (Predictor().fit(runs).forecast(asked).prefill for runs in (apart, []))

    assert np.abs(told.mean - typical.mean).max() < 0.5
    assert (told.sd < 2.5 * typical.sd).all()


def test_one_device_says_a_fifth_of_what_the_next_one_is() -> None:
    """It reads prompts at a tenth of what is typical: the next one is expected at six tenths."""
    everything = [o for o in strangers() if o.prefill_tps]
    first = everything[0].machine_id
    slow = [dataclasses.replace(o, prefill_tps=o.prefill_tps / 10)
            for o in everything if o.machine_id == first]  # fmt: skip
    asked = [c for o in everything if o.machine_id != first and (c := Case.of(o))]

    told, typical = (Predictor().fit(runs).forecast(asked).prefill for runs in (slow, []))

    shift = np.median(told.mean - typical.mean)
    assert 0.1 * np.log(10) < shift < 0.3 * np.log(10)
    assert (told.sd < typical.sd * 1.3).all()


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


def test_how_fast_a_gpu_is_that_nobody_lists_is_anybodys_guess() -> None:
    """Until something was run there."""
    everything = strangers()
    first = everything[0].machine_id
    new = MachineFacts(cpu="", gpus=(GPUFacts(name="NVIDIA Something New"),))
    here = [dataclasses.replace(o, machine=new, machine_id="new") for o in everything[:5]]
    asked = [case for o in here if (case := Case.of(o))]
    listed = [case for o in everything if o.machine_id == first and (case := Case.of(o))][:5]

    predictor = Predictor().fit([])
    guessed, known = (predictor.forecast(cases).decode.sd for cases in (asked, listed))
    met = Predictor().fit(here).forecast(asked, verbatim=False).decode.sd

    assert (guessed >= bandwidth_spread()).all()
    assert (known < bandwidth_spread()).all()
    assert (met < bandwidth_spread()).all()


def test_a_second_device_with_one_run_is_learned_of() -> None:
    """Nothing can be fitted to it alone."""
    everything = strangers()
    first, *_, last = everything
    here = [o for o in everything if o.machine_id == first.machine_id]
    asked = [case for case in [Case.of(last)] if case]

    told = Predictor().fit([*here, last]).forecast(asked, verbatim=False)

    assert np.isfinite(told.decode.mean).all()


def test_an_unknown_place_has_no_effect() -> None:
    """Nothing is known of it."""
    effects = fit_places(make_places(["gpu 1"], ["a"]), np.array([0.5]))

    assert effects.column(make_places(["new 1"], ["b"])) == 0


def test_many_runs_of_one_family_are_still_one_family() -> None:
    """What it does with ten builds of an interface may be its own: half of it is believed."""
    once = fit_places(make_places(["gpu 1"], ["a"]), np.array([0.5]))
    often = fit_places(make_places([f"gpu {n}" for n in range(10)], ["a"] * 10), np.full(10, 0.5))
    asked = make_places(["gpu 99"], ["new"])

    assert 0 < once.column(asked) < often.column(asked) < 0.5 * 0.5


def test_what_attention_does_is_felt_by_its_share() -> None:
    """A prompt of which four times as much is attention feels twice what its kernels do."""
    cases = [case for o in strangers() if (case := Case.of(o)) and case.workload.n_prompt == 2048]
    share = build_features(cases).roofline.attention_share

    where = locate("prefill", build_features(cases).x["prefill"], subjects_of(cases))
    by_attention = np.array([width.by_attention for width in WIDTHS])
    felt = where.loading[:, by_attention]

    assert np.ptp(share) > 0
    assert felt == pytest.approx(np.sqrt(share / 0.03)[:, None] * [1, 1])
    assert (where.loading[:, ~by_attention] == 1).all()


def test_what_is_felt_twice_counts_twice() -> None:
    """Of an effect that others felt at a loading of 1."""
    places = make_places(["gpu 1"] * 3, ["a", "b", "c"])
    effects = fit_places(places, np.array([0.4, 0.5, 0.6]))

    once, twice = (effects.column(make_places(["gpu 1"], ["new"], loading=x)) for x in (1.0, 2.0))

    assert 0 < once < 0.5
    assert twice == pytest.approx(2 * once)


def test_only_a_prompt_has_other_places_at_each_length() -> None:
    """The narrow ones."""
    cases = [case for o in strangers()[:1] if (case := Case.of(o))]
    table = build_features(cases)
    prefill, decode = (locate(p, table.x[p], subjects_of(cases)) for p in ("prefill", "decode"))

    assert list(decode.names[0]) == list(subjects_of(cases).places[0])
    assert list(prefill.names[0, :3]) == list(decode.names[0, :3])
    at_length = [f"{name}/{prefill.length[0]}" for name in decode.names[0, 3:]]
    assert list(prefill.names[0, 3:]) == at_length
    assert (prefill.sd, decode.sd) == ((2.0,) * 8, (2.0,) * 3 + (1.0,) * 5)


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


def test_no_line_leads_beyond_what_was_seen() -> None:
    """A model ten times as far out as any is expected to be like the furthest."""
    x = np.arange(10.0)[:, None]
    line = fit_linear(x, x[:, 0], np.ones(10))

    assert line.predict(np.array([[4.5], [100.0], [-100.0]])) == pytest.approx([4.5, 9, 0])


def test_little_work_in_a_layer_waits_for_its_launch() -> None:
    """A GPU that takes 0.056 ms for each: as long again, where 0.056 ms of work are in it."""
    decode = typical_of("llama.cpp").slowdown["decode"]
    on_gpu = np.array([True, True, False])

    told = np.exp(decode.mean(on_gpu, np.array([0.056, 1e6, 0.056])))

    assert told == pytest.approx([1 / 0.79 + 1, 1 / 0.79, 1 / 0.6])


def test_what_stays_on_the_host_is_typical_of_a_host() -> None:
    """With no layer on the GPU its use of memory is a processor's, and nothing is launched."""
    generation = next(o for o in strangers() if o.decode_tps)
    case = Case.of(generation)
    assert case is not None
    cases = [dataclasses.replace(case, config=case.config.replace(n_gpu_layers=n)) for n in (0, 99)]
    least_s = build_features(cases).roofline.decode_s

    seconds = np.exp(Predictor().fit([]).forecast(cases).decode.mean)

    launches_s = 0.056e-3 * case.model.n_layers
    assert seconds == pytest.approx([least_s[0] / 0.6, least_s[1] / 0.79 + launches_s])


def test_one_run_shifts_its_neighbours_and_shrinks() -> None:
    """Towards the residual, not beyond it; far knobs keep more doubt."""
    process = Process.fit(KERNEL, np.zeros((1, 2)), HERE, np.array([0.5]), np.array([0.02]))
    mean, sd = process.predict(np.array([[0.0, 0.0], [6.0, 0.0]]), HERE)

    assert 0.4 < mean[0] < 0.5
    assert 0.3 < mean[1] < mean[0]
    assert sd[0] < sd[1] < np.sqrt(KERNEL.variance)


def test_a_model_that_contradicts_the_kernel_widens_it() -> None:
    """Effects four times as large as expected leave more doubt elsewhere; expected ones do not."""
    random = np.random.default_rng(0)
    x = random.uniform(0, 12, (12, 2))
    places, noise = np.repeat(HERE, 12, axis=0), np.full(12, 0.02)
    elsewhere = np.array([[20.0, 20.0]])
    doubts = []
    for scale in (1.0, 4.0):
        residual = scale * KERNEL.shape_sd * random.normal(size=12)
        process = Process.fit(KERNEL, x, places, residual, noise)
        doubts.append(float(process.predict(elsewhere, HERE)[1][0]))

    assert doubts[0] <= np.sqrt(KERNEL.variance)
    assert doubts[1] > 1.5 * doubts[0]


def test_another_build_carries_less_and_another_interface_least() -> None:
    """Who does not name a build means the one that was run with that interface."""
    x = np.zeros((1, 2))
    process = Process.fit(KERNEL, x, HERE, np.array([0.5]), np.array([0.02]))
    asked = [["m/CUDA", "m/CUDA/1"], ["m/CUDA", "m/CUDA/"], ["m/CUDA", "m/CUDA/2"],
             ["m/Vulkan", "m/Vulkan/1"], ["m/Vulkan", "m/Vulkan/"]]  # fmt: skip

    same, unnamed, build, interface, neither = process.mean(np.zeros((5, 2)), np.array(asked))

    assert interface == neither < build < same == unnamed


def test_calibration_widens_what_was_too_sure() -> None:
    """Scores of a normal error that was claimed to be half as large."""
    scores = np.abs(np.random.default_rng(0).normal(0, 2, 2000))
    families = np.repeat(np.arange(200).astype(str), 10)
    calibration = Calibration.fit({tier_of(0): (scores, families)})

    for coverage in (0.5, 0.8, 0.9):
        assert calibration.factor(tier_of(0), coverage) == pytest.approx(2.0, rel=0.1)
    assert calibration.factor(tier_of(1)) == 1.0


def test_few_families_widen_further() -> None:
    """The next family is one draw from as many as there are."""
    scores = np.abs(np.random.default_rng(0).normal(0, 1, 2000))
    few, many = (
        Calibration.fit({tier_of(0): (scores, np.repeat(np.arange(n).astype(str), 2000 // n))})
        for n in (5, 500)
    )

    assert few.factor(tier_of(0)) > 1.2 * many.factor(tier_of(0))


def test_few_scores_change_nothing() -> None:
    """Nineteen left-out rows are no evidence."""
    calibration = Calibration.fit({tier_of(0): (np.full(19, 9.0), np.full(19, "a"))})

    assert calibration.factor(tier_of(0)) == 1.0


def test_a_weighted_quantile_counts_weight() -> None:
    """One heavy value is most of the weight."""
    values, weight = np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 8.0])

    assert weighted_quantile(values, weight, 0.1) == 1.0
    assert weighted_quantile(values, weight, 0.5) == 3.0


def test_folds_keep_families_whole_and_alike() -> None:
    """Every family has one fold, and the largest ones are apart."""
    families = np.repeat(["a", "b", "c", "d", "e"], [50, 40, 30, 20, 10])
    dealt = deal_folds(families, 4)

    assert len({dealt[name] for name in "abcd"}) == 4
    assert dealt["e"] == dealt["d"]
