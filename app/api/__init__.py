"""The REST interface: one module per resource, `problems` for every error."""

from fastapi import FastAPI

from app.api import (
    batches,
    catalogs,
    events,
    health,
    items,
    jobs,
    listing,
    metrics,
    problems,
    recommend,
    schema,
    transfer,
    tree,
    users,
    versions,
)
from app.api.access import Access, grant
from app.catalogs import CatalogSettings
from app.recommend import RecommendRequest
from tree.item import Item

__all__ = ["Access", "grant", "install"]

_RESOURCES = (
    catalogs, items, batches, listing, transfer, recommend, events, users, tree, versions, jobs,
    health, metrics,
)  # fmt: skip
_BODIES = (
    CatalogSettings,
    RecommendRequest,
    batches.BatchRequest,
    events.EventsRequest,
    users.UserContent,
    tree.NodePatch,
    tree.RebuildRequest,
)


def install(app: FastAPI) -> metrics.Metrics:
    """Give `app` its routes, its problems, its description and its figures."""
    for resource in _RESOURCES:
        app.include_router(resource.router)
    problems.install(app, [route for resource in _RESOURCES for route in resource.router.routes])
    schema.describe(app, _BODIES, {items.ITEM_CONTENT: schema.without(Item, "id")})
    return metrics.install(app)
