"""`recommend-all`: lists for all stored users, or for a file of requests, as JSON Lines."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.progress import watch
from app.cli.session import (
    CatalogOption,
    Failed,
    Interrupted,
    JsonOption,
    opened,
    out,
    print_json,
    run,
)
from app.cli.trees import EngineName
from app.options import EffortName, StrategyName

if TYPE_CHECKING:
    from pydantic import JsonValue

    from app.catalogs import Catalog
    from app.jobs import Job
    from app.lists import ListAnswers, RunFiles, RunProgress
    from app.settings import Settings


def recommend_all(
    output: Annotated[
        Path, typer.Option("--output", "-o", dir_okay=False, help="The file of lists.")
    ],
    requests: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="JSON Lines, gzipped or not: requests as POST …/recommend takes them. Default: "
            "all stored users.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 10,
    effort: Annotated[EffortName, typer.Option(help="What a model may cost.")] = "auto",
    strategy: Annotated[
        StrategyName, typer.Option(help="How items are found; embedded asks no model.")
    ] = "beam",
    timeout_s: Annotated[float, typer.Option(min=0.1, max=600, help="Of one list.")] = 60,
    max_cost_usd: Annotated[
        float | None,
        typer.Option(min=0, help="Most that models may cost; further lists come without one."),
    ] = None,
    engine: Annotated[
        EngineName,
        typer.Option(help="Where the lists are made; ray needs UNILLMREC_REDIS_URL."),
    ] = EngineName.LOCAL,
    ray_address: Annotated[
        str | None, typer.Option(help="The Ray cluster: auto, host:6379 or ray://host:10001.")
    ] = None,
    catalog: CatalogOption = "default",
    as_json: JsonOption = False,
) -> None:
    """Write one list a line: `line`, `user_id`, `stored_user`, and `answer` or `problem`.

    What was stopped goes on where it was when the same command is given again.
    """
    if output.exists():
        raise typer.BadParameter(_exists(output))
    if engine is EngineName.RAY and max_cost_usd is not None:
        raise typer.BadParameter("--max-cost-usd holds on one machine: not with --engine ray")
    fields: dict[str, JsonValue] = {
        "limit": limit,
        "effort": effort,
        "strategy": strategy,
        "timeout_ms": round(1000 * timeout_s),
    }
    work = _run(catalog, output, requests, fields, max_cost_usd, engine, ray_address, quiet=as_json)
    progress = run(work)
    if as_json:
        print_json({**progress.result(), "cost_usd": progress.cost_usd, "output": str(output)})
        return
    cost = f", ${progress.cost_usd:.4f}" if progress.cost_usd else ""
    out.print(
        f"{progress.lists:,} lists written to {output}, {progress.problems:,} requests failed, "
        f"{progress.degraded:,} lists degraded{cost}",
        markup=False,
    )


async def _run(
    catalog: str,
    output: Path,
    requests: Path | None,
    fields: "dict[str, JsonValue]",
    max_cost_usd: float | None,
    engine: EngineName,
    ray_address: str | None,
    *,
    quiet: bool,
) -> "RunProgress":
    from app.jobs import Job, JobFailed, JobReport
    from app.lists import ListRun, RunFiles
    from tree.worker import Background

    files = RunFiles.beside(output, requests)
    async with opened(catalog, build_engine=engine, ray_address=ray_address) as (parts, found):
        report = JobReport(Job.new("recommendation", found.id, {}))

        async def work() -> "RunProgress":
            users = found.feedback if requests is None else None
            with files.alone():
                if output.exists():  # since this command has begun
                    raise JobFailed("exists", _exists(output))
                async with _answers(catalog, found, parts.settings, fields) as answers:
                    lists = ListRun(answers, files, max_cost_usd, catalog_id=found.id, users=users)
                    done = await lists.run(report)
                await asyncio.to_thread(files.finish, output, keep_requests=users is None)
                return done

        background = Background("recommend-all", quiet=Exception)  # raised here
        task = background.start(work())

        async def read(_: str) -> "Job":
            return (
                report.job.model_copy(update={"state": "succeeded"}) if task.done() else report.job
            )

        try:
            await watch(report.job, read, quiet=quiet)
            return task.result()
        except JobFailed as error:
            raise Failed(str(error)) from error
        except asyncio.CancelledError as error:
            await background.aclose()
            raise Interrupted(_interrupted(files)) from error


@asynccontextmanager
async def _answers(
    name: str, catalog: "Catalog", settings: "Settings", fields: "dict[str, JsonValue]"
) -> "AsyncIterator[ListAnswers]":
    """The lists of this process, or of the cluster that the settings name."""
    from app.lists import OwnAnswers

    if settings.build_engine == "local":
        yield OwnAnswers(catalog.recommender, fields)
        return
    from app.curate.building.engine import engine_for
    from app.list_workers import WorkerAnswers, WorkerOrder

    order = WorkerOrder(settings, name, fields)
    async with engine_for(settings)(0) as engine:
        yield WorkerAnswers(engine, order)


def _exists(output: Path) -> str:
    return f"{output} exists: choose another file, or remove it"


def _interrupted(files: "RunFiles") -> str:
    known = files.known()
    return (
        f"stopped after {known.lists:,} lists, which are in {files.lists}: the same command goes "
        "on there"
    )
