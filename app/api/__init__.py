"""The REST interface: one module per resource, `problems` for every error."""

from fastapi import FastAPI

from app.api import (
    batches,
    catalogs,
    health,
    items,
    jobs,
    listing,
    problems,
    recommend,
    schema,
    transfer,
    tree,
)
from app.api.access import Access, grant
from app.catalogs import CatalogSettings
from app.recommend import RecommendRequest
from tree.item import Item

__all__ = ["Access", "grant", "install"]

_RESOURCES = (
    catalogs, items, batches, listing, transfer, recommend, tree, jobs, health,
)  # fmt: skip
_BODIES = (
    CatalogSettings,
    RecommendRequest,
    batches.BatchRequest,
    tree.NodePatch,
    tree.RebuildRequest,
)


def install(app: FastAPI) -> None:
    """Give `app` its routes, its problems and its description."""
    for resource in _RESOURCES:
        app.include_router(resource.router)
    problems.install(app, [route for resource in _RESOURCES for route in resource.router.routes])
    schema.describe(app, _BODIES, {items.ITEM_CONTENT: schema.without(Item, "id")})
