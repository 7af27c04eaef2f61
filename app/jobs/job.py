"""`Job`: long work, as the API shows it and as it is stored."""

from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from tree.store.keys import catalog_id, creation_of, name_of

JobState = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
JobType = Literal[
    "import", "placement", "rebuild", "activation", "enrichment", "tuning", "recommendation"
]

ENDED = ("succeeded", "failed", "cancelled")
_LISTS = frozenset({"errors", "errors_not_shown", "damaged_items", "labels_lost"})
_LOST_AFTER = timedelta(seconds=30)


class Progress(BaseModel):
    """How far a job is. `total` is null while it is unknown."""

    model_config = ConfigDict(frozen=True)

    phase: str = "queued"
    done: int = 0
    total: int | None = None
    unit: str = "items"
    eta_s: float | None = None


class Job(BaseModel):
    """A job as the API shows it."""

    model_config = ConfigDict(frozen=True)

    id: str
    type: JobType
    catalog: str
    creation: str = Field(
        default="", description="Tells apart catalogues that had the same name at different times."
    )
    params: dict[str, JsonValue] = Field(default={}, description="What was asked for.")
    state: JobState = "queued"
    progress: Progress = Progress()
    cost_usd: float = 0.0
    attempt: int = Field(default=1, description="More than 1 after its process was lost.")
    revision: int = Field(default=0, description="Rises with every change of the job.")
    created_at: datetime
    heartbeat_at: datetime
    finished_at: datetime | None = None
    result: dict[str, object] | None = None
    problem: dict[str, object] | None = Field(
        default=None, description="Why it failed, as a problem document."
    )

    @classmethod
    def new(cls, kind: JobType, catalog_id: str, params: dict[str, JsonValue]) -> "Job":
        """A new job that no process has begun."""
        now = datetime.now(UTC)
        return cls(
            id=f"job_{token_hex(8)}",
            type=kind,
            catalog=name_of(catalog_id),
            creation=creation_of(catalog_id),
            params=params,
            created_at=now,
            heartbeat_at=now,
        )

    @property
    def catalog_id(self) -> str:
        """The id of the catalogue it works on; another catalogue of that name has another id."""
        return catalog_id(self.catalog, self.creation)

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def brief(self) -> "Job":
        """The job as a list shows it: its result without lists of errors and items."""
        if self.result is None:
            return self
        result = {name: value for name, value in self.result.items() if name not in _LISTS}
        return self.model_copy(update={"result": result})

    def shown(self) -> "Job":
        """The job as a client sees it; when its process is gone, its problem says so."""
        if self.ended or datetime.now(UTC) - self.heartbeat_at < _LOST_AFTER:
            return self
        problem = {
            "code": "lost",
            "detail": "the process that ran this job is gone; what it had stored is kept. A "
            "service takes the job over (for an import: one with the same data folder); "
            "or cancel it and start it again",
        }
        return self.model_copy(update={"state": "queued", "problem": problem})


class JobRunning(Exception):
    """Another job of this kind works on the catalogue."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} already runs: wait for it, or cancel it")
        self.job_id = job_id


class JobFailed(Exception):
    """The job cannot continue; the message is for the user who started it."""

    def __init__(self, code: str, detail: str, result: dict[str, object] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.result = result
