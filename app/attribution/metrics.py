"""`RecommendationMetrics`: a report as it is answered over HTTP and printed as JSON."""

from datetime import date
from typing import Literal

from pydantic import BaseModel, Field

from app.attribution.estimates import Difference, Estimate
from app.attribution.report import By, Report, ReportRow


class RateEstimate(BaseModel):
    """A rate, and its 95 % interval over users."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, found: Estimate | None) -> "RateEstimate | None":
        """The same; None where it is not known."""
        return None if found is None else cls(value=found.value, low=found.low, high=found.high)


class RateDifference(BaseModel):
    """A rate minus that of the control."""

    value: float
    relative: float | None = Field(description="Over the rate of the control.")
    interval: RateEstimate | None = Field(description="95 %, for one look that was planned.")
    sequence: RateEstimate | None = Field(
        description="95 % for all looks together, so that it may be looked at every day; null: too "
        "little is known yet."
    )
    verdict: Literal["better", "worse", "open"] = Field(
        description="What `sequence` says: it lies above zero, below, or on both sides."
    )

    @classmethod
    def of(cls, found: Difference | None) -> "RateDifference | None":
        """The same; None where it is not known."""
        if found is None:
            return None
        return cls(
            value=found.value,
            relative=found.relative,
            interval=RateEstimate.of(found.interval),
            sequence=RateEstimate.of(found.sequence),
            verdict=found.verdict,
        )


class ControlComparison(BaseModel):
    """How the rates of a variant differ from those of `default`."""

    ctr: RateDifference | None
    clicks_per_list: RateDifference | None
    conversions_per_list: RateDifference | None
    value_per_list: RateDifference | None


class RecommendationMetricsRow(BaseModel):
    """What came of the lists of one label: a variant, a strategy, a day, ….

    A list is an answer with items. Rates are null where nothing is known of them.
    """

    label: str = Field(description="`-` for lists without a scenario, or without a model's effort.")
    lists: int
    impressions: int
    clicks: int = Field(description="Items that were clicked or viewed.")
    conversions: int = Field(
        description="Purchases, and own types of events with the weight 1 or more."
    )
    value: float = Field(description="Of all conversions.")
    ctr: RateEstimate | None = Field(description="Clicks over impressions.")
    clicks_per_list: RateEstimate | None
    conversions_per_list: RateEstimate | None
    value_per_list: RateEstimate | None
    against_control: ControlComparison | None = Field(
        description="With `by=variant`, for all variants but `default`."
    )

    @classmethod
    def of(cls, row: ReportRow) -> "RecommendationMetricsRow":
        """The row as it is answered."""
        differences = row.against_control
        return cls(
            label=row.label,
            lists=row.lists,
            impressions=row.impressions,
            clicks=row.clicks,
            conversions=row.conversions,
            value=row.value,
            ctr=RateEstimate.of(row.ctr),
            clicks_per_list=RateEstimate.of(row.clicks_per_list),
            conversions_per_list=RateEstimate.of(row.conversions_per_list),
            value_per_list=RateEstimate.of(row.value_per_list),
            against_control=None
            if differences is None
            else ControlComparison(
                ctr=RateDifference.of(differences.ctr),
                clicks_per_list=RateDifference.of(differences.clicks_per_list),
                conversions_per_list=RateDifference.of(differences.conversions_per_list),
                value_per_list=RateDifference.of(differences.value_per_list),
            ),
        )


class UnattributedEvents(BaseModel):
    """Events with a `recommendation_id` that count for no list; events that are sent again do, too.

    `late`: the answer is not kept any more; `unknown`: there was none of that id; `not_shown`: the
    item was not in it.
    """

    late: int
    unknown: int
    not_shown: int


class RecommendationMetrics(BaseModel):
    """What came of recommendations, by the day of the list (UTC)."""

    catalog: str
    since: date
    until: date
    by: By
    rows: list[RecommendationMetricsRow]
    unattributed: UnattributedEvents

    @classmethod
    def of(
        cls, catalog: str, days: tuple[date, date], by: By, found: Report
    ) -> "RecommendationMetrics":
        """The metrics of some days."""
        return cls(
            catalog=catalog,
            since=days[0],
            until=days[1],
            by=by,
            rows=[RecommendationMetricsRow.of(row) for row in found.rows],
            unattributed=UnattributedEvents(**found.lost),
        )
