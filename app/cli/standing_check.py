"""The check of `doctor` for the standing of the model in a catalogue."""

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from app.cli.check import Check
from tree.errors import TreeError

if TYPE_CHECKING:
    from app.catalogs import Catalog

_HOUR_S = 3_600


async def standing_check(catalog: "Catalog") -> AsyncIterator[Check]:
    """One check; none without a model, or where it is not examined."""
    standings = catalog.recommender.standings
    if standings is None:
        return
    name = f"catalogue {catalog.name}, model"
    try:
        standing = await standings.stored()
    except TreeError:  # another check reports it
        return
    if standing is None:
        finding = "it has not been examined on this catalogue: it has its whole weight until then"
        yield Check(name=name, status="ok", finding=finding)
        return
    hours = (time.time() - standing.at) / _HOUR_S
    result = f"examined {hours:,.0f} hours ago for {standing.tokens:,} tokens: {standing.line()}"
    if standing.is_asked:
        finding = f"{standing.model} ranks with {standing.factor:.0%} of its weight; {result}"
        yield Check(name=name, status="ok", finding=finding)
        return
    yield Check(
        name=name,
        status="warn",
        finding=f"{standing.model} does not rank items, which vectors do as well; {result}",
        advice="try another model; UNILLMREC_LLM_EXAMINATION=false asks this one all the same",
    )
