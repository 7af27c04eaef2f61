"""`/metrics`: the metrics of this process, for Prometheus.

Every process has its own: scrape each replica, not only their common address.
"""

import time
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, cast

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.attribution import measure_of
from app.catalogs import Catalogs
from app.embedders import EmbedderUsage
from app.event_types import EventRules
from app.examinations import standings
from app.jobs import ENDED, Jobs, JobState, JobType
from app.recommend import Recommendation
from app.recommend.standing.standing import Standing
from app.storage.attribution import Attributed
from app.storage.feedback import Event
from tree.snapshot import SemanticTree

router = APIRouter(tags=["health"])

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_LAG_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 30)
_NO_ROUTE = "none"
_OTHER_TYPE = "other"  # names are free, so their number is not bounded


class Metrics:
    """The metrics of one process, in their own registry."""

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
            "Age of a version when this process had applied it, by the store's clock.",
            ("catalog",),
            buckets=_LAG_SECONDS,
            registry=self.registry,
        )
        self._answers = Counter(
            "unillmrec_recommendations",
            "Recommendations, by the reason for a degraded answer.",
            ("catalog", "degraded"),
            registry=self.registry,
        )
        self._events = Counter(
            "unillmrec_events",
            "Events of users, by what became of them.",
            ("catalog", "type", "outcome"),
            registry=self.registry,
        )
        self._attributed = Counter(
            "unillmrec_attributed_events",
            "Impressions, clicks and conversions that name a recommendation. Clicks that were "
            "attributed over impressions that were is the click-through rate.",
            ("catalog", "measure", "outcome"),
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
        """Count a newer version of a catalogue that this process has applied after `lag_s`."""
        self._lag.labels(catalog).observe(lag_s)

    def answered(self, answer: Recommendation) -> None:
        """Count a recommendation, with its calls to models."""
        usage = answer.usage
        self._answers.labels(answer.catalog, answer.degraded_reason or "no").inc()
        for stage, spent in usage.stages.items():
            self._calls.labels(answer.catalog, stage).inc(spent.calls)
        self._tokens.labels(answer.catalog, "read").inc(usage.input_tokens)
        self._tokens.labels(answer.catalog, "written").inc(usage.output_tokens)
        self._cost.labels(answer.catalog).inc(usage.cost_usd)

    def counted(
        self,
        catalog: str,
        rules: EventRules,
        events: Sequence[Event],
        outcomes: Sequence[str],
        attributed: Sequence[Attributed | None],
    ) -> None:
        """Count events, and those that name a recommendation."""
        for event, outcome, found in zip(events, outcomes, attributed, strict=True):
            kind = event.type if event.type in rules.types else _OTHER_TYPE
            self._events.labels(catalog, kind, outcome).inc()
            if found is not None and (measure := measure_of(event.type, rules)) is not None:
                self._attributed.labels(catalog, measure, found).inc()

    def watch(self, catalogs: Catalogs, jobs: Jobs) -> None:
        """Report the loaded trees of these catalogues, and the jobs of this process."""
        self._trees.catalogs = catalogs
        self._trees.jobs = jobs

    def timed(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request with its duration."""
        self._seconds.labels(method, route, str(status)).observe(seconds)


class _Trees(Collector):
    """Metrics of loaded trees, read at each scrape; nothing is loaded for it."""

    catalogs: Catalogs | None = None
    jobs: Jobs | None = None

    def collect(self) -> Iterable[Metric]:
        yield from _jobs(self.jobs.counts() if self.jobs else {})
        yield from _embedders(self.catalogs.embedder_usage() if self.catalogs else {})
        yield _failures(self.catalogs.model_failures() if self.catalogs else {})
        yield from _standings(standings(self.catalogs) if self.catalogs else {})
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

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", _NO_ROUTE)
            self._metrics.timed(scope["method"], route, status, seconds)


def _embedders(usage: Mapping[str, EmbedderUsage]) -> Iterable[Metric]:
    """What embedders behind endpoints were asked for, by model."""
    texts = CounterMetricFamily(
        "unillmrec_embedder_texts", "Texts that an embedder has answered.", labels=["model"]
    )
    tokens = CounterMetricFamily(
        "unillmrec_embedder_tokens", "Tokens that embedders have read.", labels=["model"]
    )
    cost = CounterMetricFamily(
        "unillmrec_embedder_cost_usd", "What embedders cost.", labels=["model"]
    )
    for model, spent in usage.items():
        texts.add_metric([model], spent.texts)
        tokens.add_metric([model], spent.tokens)
        cost.add_metric([model], spent.cost_usd)
    return texts, tokens, cost


def _jobs(counts: Mapping[tuple[JobType, JobState], int]) -> Iterable[Metric]:
    """The jobs of this process by type and state."""
    ended = CounterMetricFamily(
        "unillmrec_jobs_ended", "Jobs that have ended in this process.", labels=["type", "state"]
    )
    running = GaugeMetricFamily(
        "unillmrec_jobs_running", "Jobs that this process runs.", labels=["type"]
    )
    now = Counts[JobType]()
    for (kind, state), count in counts.items():
        if state in ENDED:
            ended.add_metric([kind, state], count)
        else:
            now[kind] += count
    for kind, count in now.items():
        running.add_metric([kind], count)
    return ended, running


def _failures(counts: Mapping[tuple[str, str], int]) -> Metric:
    """How often models have failed, by model and by what their endpoint said."""
    failures = CounterMetricFamily(
        "unillmrec_llm_failures",
        "Calls to a model that failed: a status of HTTP, timeout, connection or thinking.",
        labels=["model", "reason"],
    )
    for (model, reason), count in counts.items():
        failures.add_metric([model, reason], count)
    return failures


def _standings(found: Mapping[str, Standing]) -> Iterable[Metric]:
    """What the model got right in its last examination, by catalogue."""
    labels = ("catalog", "model")
    factor = GaugeMetricFamily(
        "unillmrec_llm_standing",
        "Share of its weight that the model has earned; at 0 it is not asked to rank.",
        labels=labels,
    )
    tokens = GaugeMetricFamily(
        "unillmrec_llm_examination_tokens", "Tokens of its last examination.", labels=labels
    )
    for catalog, standing in found.items():
        factor.add_metric([catalog, standing.model], standing.factor)
        tokens.add_metric([catalog, standing.model], standing.tokens)
    return factor, tokens


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
    """Make `app` count and time its requests."""
    metrics = app.state.metrics = Metrics()
    app.add_middleware(Timing, metrics=metrics)
    return metrics


async def _metrics(request: Request) -> Metrics:
    return cast(Metrics, request.app.state.metrics)


TheMetrics = Annotated[Metrics, Depends(_metrics)]


@router.get("/metrics", operation_id="metrics", response_class=Response)
async def metrics(figures: TheMetrics) -> Response:
    """Get the metrics of this process, for Prometheus."""
    return Response(generate_latest(figures.registry), media_type=CONTENT_TYPE_LATEST)
