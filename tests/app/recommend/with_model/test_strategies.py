"""Every strategy that a request can name is a composition of stages."""

from typing import get_args

from app.options import StrategyName
from app.recommend.strategies import MODEL_STRATEGIES, embedded


def test_every_name_of_a_strategy_has_a_composition() -> None:
    named = {name: strategy.run for name, strategy in MODEL_STRATEGIES.items()}
    named["embedded"] = embedded
    assert named.keys() == set(get_args(StrategyName))
    assert all(run.__name__ == name for name, run in named.items())
