"""`/metrics`: what this process has done and how it is, for Prometheus.

Every process tells of itself: behind one address, let each replica be scraped.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, cast

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.catalogs import Catalogs
from app.recommend import Recommendation
from tree.snapshot import SemanticTree

router = APIRouter(tags=["health"])

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_LAG_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 30)
_NO_ROUTE = "none"


class Metrics:
    """The figures of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._trees = _Trees()
        self.registry.register(self._trees)
        self._seconds = Histogram(
            "unillmrec_http_request_seconds",
            "From the request to the end of its answer.",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._lag = Histogram(
            "unillmrec_replica_lag_seconds",
            "Age of a version when this process had caught up with it, by the store's clock.",
            ("catalog",),
            buckets=_LAG_SECONDS,
            registry=self.registry,
        )
        self._answers = Counter(
            "unillmrec_recommendations",
            "Answers to readers, by what degraded them.",
            ("catalog", "degraded"),
            registry=self.registry,
        )
        self._calls = Counter(
            "unillmrec_llm_calls", "Calls to a model.", ("catalog", "stage"), registry=self.registry
        )
        self._tokens = Counter(
            "unillmrec_llm_tokens",
            "Tokens that models read and wrote.",
            ("catalog", "direction"),
            registry=self.registry,
        )
        self._cost = Counter(
            "unillmrec_llm_cost_usd", "What models cost.", ("catalog",), registry=self.registry
        )

    def lagged(self, catalog: str, lag_s: float) -> None:
        """A newer version of a catalogue was reached, so old by then."""
        self._lag.labels(catalog).observe(lag_s)

    def answered(self, answer: Recommendation) -> None:
        """A reader got an answer."""
        usage = answer.usage
        self._answers.labels(answer.catalog, answer.degraded_reason or "no").inc()
        for stage, spent in usage.stages.items():
            self._calls.labels(answer.catalog, stage).inc(spent.calls)
        self._tokens.labels(answer.catalog, "read").inc(usage.input_tokens)
        self._tokens.labels(answer.catalog, "written").inc(usage.output_tokens)
        self._cost.labels(answer.catalog).inc(usage.cost_usd)

    def watch(self, catalogs: Catalogs) -> None:
        """Tell of the trees that this process has open."""
        self._trees.catalogs = catalogs

    def timed(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._seconds.labels(method, route, str(status)).observe(seconds)


class _Trees(Collector):
    """Read when somebody asks; nothing is loaded for it."""

    catalogs: Catalogs | None = None

    def collect(self) -> Iterable[Metric]:
        trees = self.catalogs.loaded() if self.catalogs else {}
        yield _gauge("items", "Items in the newest tree that is loaded.", trees, len)
        yield _gauge("nodes", "Nodes of that tree.", trees, lambda tree: tree.node_count)
        yield _gauge("version", "Its version.", trees, lambda tree: tree.version)


class Timing:
    """Middleware that times every request by its route, never by its path."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        began = time.perf_counter()

        async def heard(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, heard)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", _NO_ROUTE)
            self._metrics.timed(scope["method"], route, status, seconds)


def _gauge(
    name: str,
    about: str,
    trees: Mapping[str, SemanticTree],
    figure: Callable[[SemanticTree], int],
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"unillmrec_tree_{name}", about, labels=["catalog"])
    for catalog, tree in trees.items():
        family.add_metric([catalog], figure(tree))
    return family


def install(app: FastAPI) -> Metrics:
    """Let `app` count and time what it does."""
    metrics = app.state.metrics = Metrics()
    app.add_middleware(Timing, metrics=metrics)
    return metrics


async def _metrics(request: Request) -> Metrics:
    return cast(Metrics, request.app.state.metrics)


TheMetrics = Annotated[Metrics, Depends(_metrics)]


@router.get("/metrics", operation_id="metrics", response_class=Response)
async def metrics(figures: TheMetrics) -> Response:
    """The figures of this process, for Prometheus."""
    return Response(generate_latest(figures.registry), media_type=CONTENT_TYPE_LATEST)
