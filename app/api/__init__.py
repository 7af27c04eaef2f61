"""The REST interface: one module per resource, `problems` for every error."""

from fastapi import FastAPI

from app.api import (
    audit,
    backup,
    batches,
    catalogs,
    docs,
    enrichment_jobs,
    enrichments,
    events,
    health,
    items,
    jobs,
    keys,
    listing,
    metrics,
    problems,
    recommend,
    recommend_batch,
    recommendation_metrics,
    recommendation_runs,
    schema,
    transfer,
    tree,
    tunings,
    users,
    versions,
)
from app.api.boundary import Boundary
from app.api.catalog_patch import CatalogPatch
from app.api.dependencies import Dependencies, attach
from app.api.disconnects import EndingNotice
from app.api.gate import Gate
from app.api.queries import ONLY_KNOWN
from app.api.scopes import needs_key, without_rule_in
from app.catalogs import CatalogSettings
from app.keys import KeyRequest
from app.recommend import RecommendRequest, SimilarRequest
from app.signals import UserEvent
from tree.item import Item

__all__ = ["Dependencies", "attach", "install"]

_RESOURCES = (
    catalogs, enrichments, enrichment_jobs, items, batches, listing, transfer, recommend,
    recommend_batch, recommendation_metrics, recommendation_runs, events, users, tree, tunings,
    versions, jobs, keys, audit, backup, health, metrics, docs,
)  # fmt: skip
_BODIES = (
    CatalogSettings,
    RecommendRequest,
    SimilarRequest,
    recommend_batch.RecommendBatch,
    recommendation_runs.RunRequest,
    batches.BatchRequest,
    CatalogPatch,
    enrichment_jobs.EnrichmentRequest,
    enrichments.EnrichmentBatch,
    enrichments.EnrichmentContent,
    events.EventsRequest,
    UserEvent,
    tunings.TuningRequest,
    users.EraseRequest,
    KeyRequest,
    users.UserContent,
    tree.NodePatch,
    tree.RebuildRequest,
)


def install(app: FastAPI, *, keyed: bool = False) -> metrics.Metrics:
    """Give `app` its routes, error handlers, description and metrics.

    `keyed`: its operations need keys.
    """
    for resource in _RESOURCES:
        app.include_router(resource.router, dependencies=[ONLY_KNOWN])
    if without_rule := without_rule_in(app.routes):
        raise RuntimeError(f"app/api/scopes.py has no rule for {', '.join(without_rule)}")
    app.add_middleware(Gate)
    problems.install(app, [route for resource in _RESOURCES for route in resource.router.routes])
    parts: schema.Document = {
        items.ITEM_CONTENT: schema.content(Item, items.ITEM_CONTENT, without="id"),
        items.ITEM_PATCH: schema.content(Item, items.ITEM_PATCH, without="id", partial=True),
    }
    schema.describe(app, _BODIES, parts, needs_key if keyed else None)
    figures = metrics.install(app)
    app.add_middleware(EndingNotice)
    app.add_middleware(Boundary)  # the outermost: it also sees the answers of other middleware
    return figures
