"""The standing of the model in the catalogues of this process, and when it is examined."""

import asyncio

from app.catalogs import Catalogs
from app.recommend.standing.standing import Standing

_LOOK_S = 1.0  # between looks for examinations that are due


def standings(catalogs: Catalogs) -> dict[str, Standing]:
    """The standing of the model in each open catalogue, where this process knows one."""
    found = {catalog.name: catalog.recommender.standings for catalog in catalogs.opened()}
    return {name: one.known for name, one in found.items() if one and one.known}


async def keep_models_examined(catalogs: Catalogs) -> None:
    """Begin examinations of the model whenever one is due; never returns. See Standings.

    At the start these are the catalogues with a stored standing: their model was asked within the
    last week. Others are examined at their first request.
    """
    stored = await catalogs.registry.documents.ids("standing")
    used = {document_id.partition("/")[0] for document_id in stored}
    while True:
        for catalog in catalogs.opened():
            if (standings := catalog.recommender.standings) is not None:
                standings.keep_examined(is_used=catalog.id in used)
        await asyncio.sleep(_LOOK_S)
