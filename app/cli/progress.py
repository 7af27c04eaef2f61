"""Progress bars for jobs: phase, count, rate and time left."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from app.cli.session import Failed, err

if TYPE_CHECKING:
    from app.jobs import Job

_POLL_S = 0.2
_BYTES = "bytes"
_MEGA = 1_000_000


class _Rate(TextColumn):
    def render(self, task: Task) -> Text:
        """Units per second in this phase."""
        unit = task.fields["unit"]
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{_amount(speed, unit)}/s", style="cyan")


class _Count(TextColumn):
    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        if task.total is None:
            return Text(_amount(task.completed, unit))
        return Text(f"{_amount(task.completed, unit)} of {_amount(task.total, unit)}")


class _Cost(TextColumn):
    def render(self, task: Task) -> Text:
        """What models have cost so far."""
        cost_usd = task.fields.get("cost_usd", 0.0)
        return Text(f"{cost_usd:.4f} USD" if cost_usd else "", style="cyan")


def bar(*, quiet: bool) -> Progress:
    """A progress bar on stderr, as stdout is for results; hidden when `quiet`."""
    return Progress(
        TextColumn("{task.description:>10}"),
        BarColumn(),
        _Count(""),
        _Rate(""),
        TimeRemainingColumn(),
        _Cost(""),
        console=err,
        transient=True,
        disable=quiet or not err.is_terminal,
    )


async def watch(
    job: "Job", read: Callable[[str], Awaitable["Job | None"]], *, quiet: bool
) -> "Job":
    """The ended job. Raises Failed when the job expires meanwhile."""
    with bar(quiet=quiet) as progress:
        row = progress.add_task(job.progress.phase, total=None, unit=job.progress.unit)
        phase = job.progress.phase
        while not job.ended:
            await asyncio.sleep(_POLL_S)
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError  # a client library may swallow the cancellation
            found = await read(job.id)
            if found is None:
                raise Failed(f"job {job.id} no longer exists: check whether its work was done")
            job = found
            if job.progress.phase != phase:
                phase = job.progress.phase
                progress.reset(row, description=phase, unit=job.progress.unit)
            progress.update(
                row,
                completed=job.progress.done,
                total=job.progress.total,
                cost_usd=job.cost_usd,
            )
    return job


def check_success(job: "Job") -> None:
    """Raises Failed with the reason of the job, unless it succeeded with a useful result."""
    if job.state == "succeeded":
        result = job.result or {}
        if result.get("rejected") and not result.get("accepted"):
            raise Failed("not one line is an item: is this the right file?")
        return
    if job.problem is None:
        raise Failed(f"the {job.type} was {job.state}{_stays(job.result)}")
    raise Failed(f"the {job.type} failed: {job.problem.get('detail')}")


def _stays(result: dict[str, object] | None) -> str:
    if not result or "accepted" not in result:
        return ""
    if not result.get("stored"):
        return "; nothing was imported"
    return f"; {result['accepted']:,} items of its first {result['lines']:,} lines stay"


def _amount(count: float, unit: str) -> str:
    return f"{count / _MEGA:,.1f} MB" if unit == _BYTES else f"{count:,.0f} {unit}"
