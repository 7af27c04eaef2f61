"""`doctor --endpoint`: every call to the endpoint of the model, and what is learned from it."""

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from app.cli.session import err, out, print_json, run, stop, table

if TYPE_CHECKING:
    from app.llm.endpoint.attempts import Attempt


@dataclass(slots=True)
class EndpointReport:
    """What was tried at an endpoint, and what has come of it."""

    endpoint: str = ""
    attempts: "list[Attempt]" = field(default_factory=list)
    reply_mode: str | None = None
    learned: dict[str, list[str]] = field(default_factory=dict)
    unusable: list[str] = field(default_factory=list)
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None and not self.unusable


def show_endpoint(*, as_json: bool) -> None:
    """Print what the endpoint of the model accepts. Exits with 1 if no model can be used."""
    report = run(_asked(quiet=as_json))
    if as_json:
        print_json({"ok": report.ok, **asdict(report)})
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(1)


async def _asked(*, quiet: bool) -> EndpointReport:
    from app.composition import opened_models
    from app.llm import ModelError
    from app.settings import Settings

    settings = Settings()
    if settings.llm_model is None:
        stop("no model is set: UNILLMREC_LLM_MODEL")
    report = EndpointReport()
    if not quiet:
        err.print(f"asking {settings.llm_model} …", markup=False)
    async with opened_models(settings, listen=report.attempts.append) as models:
        report.endpoint = models.endpoint
        try:
            report.reply_mode = await models.reply_mode(strict=True)
            report.unusable = await models.check()
        except ModelError as error:
            report.error = str(error)
        report.learned = models.learned()
    return report


def _print(report: EndpointReport) -> None:
    rows = table("#", "model", "sent", "answer")
    for number, attempt in enumerate(report.attempts, 1):
        rows.add_row(str(number), *map(escape, (attempt.model, attempt.sent, attempt.outcome)))
    out.print(rows)
    out.print(f"endpoint: {report.endpoint}", markup=False)
    if report.reply_mode is not None:
        out.print(f"reply mode: {report.reply_mode}", markup=False)
    for model, told in report.learned.items():
        out.print(f"{model} is asked with: {', '.join(told)}", markup=False)
    for one in report.unusable:
        out.print(f"no usable answer: {one}", markup=False, style="yellow")
    if report.error is not None:
        out.print(f"it cannot be used: {report.error}", markup=False, style="red")
