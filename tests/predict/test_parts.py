"""Processes, calibration and what is typical, each on data whose truth is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autotune.domain.machine import GPUFacts, MachineFacts
from autotune.facts.devices import bandwidth_spread
from autotune.features.case import Case
from autotune.features.columns import build_features
from autotune.predict.calibration import Calibration, tier_of, weighted_quantile
from autotune.predict.ensemble import deal_folds, fit_linear
from autotune.predict.predictor import Predictor
from autotune.predict.process import Kernel, Process
from autotune.predict.typical import typical_of
from tests.predict.strangers import strangers

KERNEL = Kernel(offset_sd=0.3, shape_sd=0.1, interface_sd=0.2, build_sd=0.1, length_scale=2.0)
HERE = np.array([["m/CUDA", "m/CUDA/1"]])
"""Interface and build."""


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
