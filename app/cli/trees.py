"""`tree` draws the tree of a catalogue; `rebuild` rebuilds it."""

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.tree import Tree

from app.cli.facts import rebuild_facts, tree_facts
from app.cli.progress import check_success, watch
from app.cli.session import CatalogOption, JsonOption, opened, out, print_json, run

if TYPE_CHECKING:
    from app.curate import RebuildParams
    from app.jobs import Job
    from tree.inspect import Outline
    from tree.snapshot import SemanticTree

_ROOT = 0  # tree.node.ROOT, without numpy


class PrintFormat(StrEnum):
    """How a tree is printed."""

    TEXT = "text"
    JSON = "json"
    GRAPHML = "graphml"


class EngineName(StrEnum):
    """Where long work is done."""

    LOCAL = "local"
    RAY = "ray"


class Mode(StrEnum):
    """What to rebuild."""

    FULL = "full"
    RELABEL = "relabel"
    SUBTREE = "subtree"


def show(
    catalog: CatalogOption = "default",
    depth: Annotated[int, typer.Option(min=0, max=64, help="Levels below the root.")] = 2,
    root: Annotated[int, typer.Option(min=0, help="The node to start at.")] = _ROOT,
    form: Annotated[
        PrintFormat, typer.Option("--format", help="How to print it.")
    ] = PrintFormat.TEXT,
    as_json: JsonOption = False,
) -> None:
    """Draw the top levels of the tree, with how many items each node holds."""
    run(_show(catalog, root, depth, PrintFormat.JSON if as_json else form))


def rebuild(
    catalog: CatalogOption = "default",
    mode: Annotated[Mode, typer.Option(help="What to rebuild.")] = Mode.FULL,
    root: Annotated[int | None, typer.Option(min=0, help="The node of mode subtree.")] = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            help="Give the catalogue another embedder (mode full): hybrid, lexical, or the one "
            "that UNILLMREC_EMBEDDER names."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Build, but do not publish.")] = False,
    max_cost_usd: Annotated[
        float | None, typer.Option(min=0, help="Most that embedder and labels may cost.")
    ] = None,
    engine: Annotated[
        EngineName | None, typer.Option(help="Where to build it. Default: as set.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="The Ray cluster: auto, host:6379 or ray://host:10001.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Rebuild the tree; the catalogue can be used and changed meanwhile."""
    if (mode is Mode.SUBTREE) != (root is not None):
        raise typer.BadParameter("mode subtree needs --root, and no other mode takes one")
    if mode is not Mode.FULL and embedder is not None:
        raise typer.BadParameter("only mode full takes --embedder")
    from app.curate import RebuildParams

    params = RebuildParams(
        mode=mode.value, root=root, embedder=embedder, dry_run=dry_run, max_cost_usd=max_cost_usd
    )
    work = _rebuild(catalog, params, engine=engine, ray_address=ray_address, quiet=as_json)
    job = run(work)
    if as_json:
        print_json(job)
    elif job.result:
        for line in rebuild_facts(job.result):
            out.print(line, markup=False, highlight=False)


async def _show(catalog: str, root: int, depth: int, form: PrintFormat) -> None:
    from tree.inspect import graphml, outline, statistics

    async with opened(catalog) as (_, found):
        tree = await found.store.load()
    match form:
        case PrintFormat.TEXT:
            out.print(_drawn(outline(tree, root, depth)))
            out.print(_summary(tree), style="dim")
        case PrintFormat.JSON:
            facts = {"catalog": catalog, "tree_version": tree.version}
            shape = {"statistics": asdict(statistics(tree))}
            print_json({**facts, **shape, "tree": asdict(outline(tree, root, depth))})
        case PrintFormat.GRAPHML:
            out.print(graphml(tree, root, depth), markup=False, soft_wrap=True)


def _drawn(node: "Outline") -> Tree:
    text = f"[bold]{escape(node.label)}[/] [cyan]{node.count:,}[/] [dim]#{node.id}[/]"
    if node.signpost:
        text += f" [dim]{escape(node.signpost)}[/]"
    drawn = Tree(text)
    for child in node.children:
        drawn.add(_drawn(child))
    return drawn


def _summary(tree: "SemanticTree") -> str:
    from tree.inspect import statistics

    return tree_facts({"tree_version": tree.version, **asdict(statistics(tree))})


async def _rebuild(
    catalog: str,
    params: "RebuildParams",
    *,
    engine: EngineName | None,
    ray_address: str | None,
    quiet: bool,
) -> "Job":
    async with opened(catalog, build_engine=engine, ray_address=ray_address) as (parts, found):
        parts.catalogs.check_embedder(params.embedder)
        job = await found.curator.start_rebuild(params)
        job = await watch(job, parts.jobs.get, quiet=quiet)
    check_success(job)
    return job
