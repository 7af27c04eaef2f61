"""Weights are those of the service, until a variant or a request changes some of them."""

from dataclasses import asdict, fields, replace

import pytest
from pydantic import ValidationError

from app.rank_weights import RankWeights, WeightChanges
from app.settings import Settings


def test_each_weight_is_a_setting_and_can_be_changed_within_its_bounds():
    names = {one.name for one in fields(RankWeights)}
    assert names - {"diversity"} == WeightChanges.model_fields.keys()
    assert asdict(Settings().rank_weights) == {name: getattr(Settings(), name) for name in names}
    for name, field in WeightChanges.model_fields.items():
        for bad in (10_000.0, float("nan"), -0.1):
            with pytest.raises(ValidationError):
                WeightChanges.model_validate({name: bad})
        assert field.default is None


def test_only_what_is_given_changes():
    weights = Settings().rank_weights
    assert weights.changed(None) is weights
    assert weights.changed(WeightChanges()) is weights
    assert weights.changed(WeightChanges(popularity_weight=0), 0.5) == replace(
        weights, popularity_weight=0, diversity=0.5
    )
