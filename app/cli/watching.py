"""A job as a progress bar: phase, count, rate and time left."""

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
        """Units a second, in this phase."""
        unit = task.fields["unit"]
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{_amount(speed, unit)}/s", style="cyan")


class _Count(TextColumn):
    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        if task.total is None:
            return Text(_amount(task.completed, unit))
        return Text(f"{_amount(task.completed, unit)} of {_amount(task.total, unit)}")


def bar(*, quiet: bool) -> Progress:
    """A progress bar on stderr, so that stdout stays for results; nothing when `quiet`."""
    return Progress(
        TextColumn("{task.description:>10}"),
        BarColumn(),
        _Count(""),
        _Rate(""),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=quiet or not err.is_terminal,
    )


async def watch(
    job: "Job", read: Callable[[str], Awaitable["Job | None"]], *, quiet: bool
) -> "Job":
    """The job at its end. Raises Failed when it was forgotten meanwhile."""
    with bar(quiet=quiet) as progress:
        row = progress.add_task(job.progress.phase, total=None, unit=job.progress.unit)
        phase = job.progress.phase
        while not job.ended:
            await asyncio.sleep(_POLL_S)
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError  # a client library has swallowed the interruption
            found = await read(job.id)
            if found is None:
                raise Failed(f"job {job.id} is no longer known: see whether its work was done")
            job = found
            if job.progress.phase != phase:
                phase = job.progress.phase
                progress.reset(row, description=phase, unit=job.progress.unit)
            progress.update(row, completed=job.progress.done, total=job.progress.total)
    return job


def ended_well(job: "Job") -> None:
    """Raises Failed, with the job's own reason, unless it succeeded and something came of it."""
    if job.state == "succeeded":
        result = job.result or {}
        if result.get("rejected") and not result.get("accepted"):
            raise Failed("not one line is an item: is this the right file?")
        return
    if job.problem is None:
        raise Failed(f"the {job.type} was {job.state}")
    raise Failed(f"the {job.type} failed: {job.problem.get('detail')}")


def _amount(count: float, unit: str) -> str:
    return f"{count / _MEGA:,.1f} MB" if unit == _BYTES else f"{count:,.0f} {unit}"
