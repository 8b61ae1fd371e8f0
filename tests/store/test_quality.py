"""Quality costs in the store: exact, the newest first, and nothing impossible."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotune.domain.config import KV_BYTES_PER_ELEMENT, Config
from autotune.domain.errors import DataError
from autotune.domain.quality import QualityCost, reference_of
from autotune.store.codec import content_id
from autotune.store.store import Store
from autotune.store.tables import BuildRow, ConfigRow, QualityRow
from tests.factories import make_build, make_model
from tests.store import examples, strategies

types = st.sampled_from(sorted(KV_BYTES_PER_ELEMENT))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cost=strategies.any_value(QualityCost, top1_agreement=st.floats(0, 1)),
    type_k=types,
    type_v=types,
)
def test_a_cost_survives(shared_store: Store, cost: QualityCost, type_k: str, type_v: str) -> None:
    """Every figure to the last bit, under its types; a later one takes the place of an earlier."""
    config = Config(flash_attn="on", type_k=type_k, type_v=type_v)
    examples.record_quality(shared_store, cost, config=config, reference=reference_of(config))

    assert shared_store.quality_costs(examples.MODEL_ID)[type_k, type_v] == cost


def test_the_newest_wins_and_types_and_models_are_kept_apart(
    store: Store, clock: examples.Clock
) -> None:
    """Whichever was entered last, the latest measurement counts; older rows stay."""
    config = Config(flash_attn="on", type_k="q4_0", type_v="q4_0")
    other = make_model(model_id="fedcba9876543210")
    store.record_model(other, examples.MODEL_PATH.with_name("other.gguf"))
    old, new, four, foreign = (examples.make_quality(n_tokens=n) for n in (1, 2, 3, 4))
    clock.advance(60)
    examples.record_quality(store, new)
    clock.advance(-30)
    examples.record_quality(store, old)
    examples.record_quality(store, four, config=config)
    examples.record_quality(store, foreign, model_id=other.model_id)

    assert store.quality_costs(examples.MODEL_ID) == {
        ("q8_0", "q8_0"): new,
        ("q4_0", "q4_0"): four,
    }
    assert store.quality_costs(other.model_id) == {("q8_0", "q8_0"): foreign}
    assert store.quality_costs("unknown") == {}


def test_a_row_says_where_how_and_over_what(store: Store, clock: examples.Clock) -> None:
    """Machine, build, both configurations, the text's hash and the moment."""
    quality_id = examples.record_quality(store, text="In the beginning")

    with store.database.read() as session:
        row = session.get_one(QualityRow, quality_id)
        config = session.get_one(ConfigRow, row.config_id)
        reference = session.get_one(ConfigRow, row.reference_config_id)
        build = session.get_one(BuildRow, row.build_id)
    assert (row.machine_id, row.model_id) == (examples.MACHINE_ID, examples.MODEL_ID)
    assert (build.backend, build.version) == (make_build().backend, make_build().version)
    assert (config.type_k, config.flash_attn) == ("q8_0", "on")
    assert (reference.type_k, reference.flash_attn) == ("f16", "on")
    assert row.text_id == content_id("In the beginning")
    assert row.measured_at == clock.at


@pytest.mark.parametrize(
    "impossible", [{"top1_agreement": 1.01}, {"kl_mean": -0.1}, {"kl_p99": -1.0}, {"n_tokens": -1}]
)
def test_impossible_figures_are_refused(store: Store, impossible: dict[str, float]) -> None:
    """One line, and nothing is kept."""
    with pytest.raises(DataError, match="CHECK constraint failed"):
        examples.record_quality(store, examples.make_quality(**impossible))

    assert store.quality_costs(examples.MODEL_ID) == {}


def test_a_cost_belongs_to_a_recorded_model(store: Store) -> None:
    """As every other fact."""
    with pytest.raises(DataError, match="FOREIGN KEY constraint failed"):
        examples.record_quality(store, model_id="nobody")
