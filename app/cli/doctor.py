"""`doctor`: finds what is wrong with this installation, and says what to do."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from rich.markup import escape
from rich.progress import Progress

from app.cli.check import Check
from app.cli.progress import bar
from app.cli.session import JsonOption, err, out, print_json, run, stop, table
from tree.errors import CorruptSnapshot, EmbedderUnavailable, TreeError
from tree.redis.aof_truncation import torn_files
from tree.store.keys import creation_of

if TYPE_CHECKING:
    from app.catalogs import Catalog
    from app.embedders import EmbedderCache
    from app.keys import Key
    from app.llm import Models
    from app.settings import Settings
    from tree.redis.server_check import ServerReport

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_NEARLY_FULL = 0.8
_MODEL_S = 30.0  # for a model to be loaded, or to answer
_CORRUPT = "unillmrec doctor --deep says what is missing; unillmrec restore brings a backup back"


DeepOption: TypeAlias = Annotated[
    bool, typer.Option("--deep", help="Check all stored data, and name what is damaged.")
]
RemoveOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--remove-strays", help="With --deep: remove keys that belong to no catalogue, for good."
    ),
]
EndpointOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--endpoint",
        help="Ask the endpoint of the model only, and show every call: what was sent and what came "
        "back. Works without a store.",
    ),
]


def doctor(
    as_json: JsonOption = False,
    deep: DeepOption = False,
    remove_strays: RemoveOption = False,
    endpoint: EndpointOption = False,
) -> None:
    """Check data folder, store, catalogues, embedder and model settings; 1 if anything fails."""
    if remove_strays and not deep:
        stop("--remove-strays goes with --deep", 2)
    if endpoint and deep:
        stop("--endpoint looks at no stored data: it does not go with --deep", 2)
    if endpoint:
        from app.cli.endpoint import show_endpoint

        show_endpoint(as_json=as_json)
        return
    checks = run(_examined(quiet=as_json, deep=deep, remove_strays=remove_strays))
    failed = any(check.status == "fail" for check in checks)
    if as_json:
        print_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        rows = table("", "what", "finding", "what to do")
        for check in checks:
            style = _STYLES[check.status]
            cells = map(escape, (check.name, check.finding, check.advice))
            rows.add_row(f"[{style}]{check.status}[/]", *cells)
        out.print(rows)
    if failed:
        raise typer.Exit(1)


async def _examined(*, quiet: bool, deep: bool, remove_strays: bool) -> list[Check]:
    from app.settings import Settings

    if deep:
        with bar(quiet=quiet) as progress:
            settings = Settings()
            return [check async for check in _examine(settings, progress, remove_strays)]
    with nullcontext() if quiet else err.status("examining"):
        return [check async for check in _examine(Settings(), None)]


async def _examine(
    settings: "Settings", deep: Progress | None, remove_strays: bool = False
) -> AsyncIterator[Check]:
    """Every check in turn; with the progress bar `deep`, also of all stored data."""
    from app.cli.deep import catalogue_checks, document_check, stray_check
    from app.cli.enriched import line_check
    from app.cli.standing_check import standing_check
    from app.composition import services

    yield await asyncio.to_thread(_data_folder, settings)
    try:
        async with services(settings, attach=True, create=False) as parts:
            for check in (*_store(settings, parts.server), *_torn(settings)):
                yield check
            yield _keys(settings, await parts.keyring.all())
            if deep:
                yield await document_check(parts.documents)
                yield await stray_check(parts.catalogs, remove=remove_strays)
            for deletion in await parts.catalogs.registry.unfinished():
                yield _deletion(deletion.name)
            for listed in await parts.catalogs.list():
                catalog = listed.catalog
                if catalog is None:
                    yield _unreadable(listed.name, listed.flaw)
                    continue
                yield await _catalogue(catalog)
                if deep:
                    async for check in catalogue_checks(catalog.name, catalog.store, deep):
                        yield check
                async for check in _own_embedder(catalog, settings, parts.embedders):
                    yield check
                async for check in line_check(catalog, has_model=parts.models.configured):
                    yield check
                async for check in standing_check(catalog):
                    yield check
            yield await _model(settings, parts.models)
    except TreeError as error:
        advice = _CORRUPT if isinstance(error, CorruptSnapshot) else ""
        yield Check(name="store", status="fail", finding=str(error), advice=advice)
    yield await _embedder(settings)


def _torn(settings: "Settings") -> Iterator[Check]:
    if files := torn_files(settings.data_dir):
        size = sum(file.stat().st_size for file in files)
        yield Check(
            name="torn writes",
            status="warn",
            finding=f"{size:,} bytes were cut off the end of the append-only file: {files[-1]}",
            advice="the log of the start says what they held; remove the files when that is known",
        )


def _keys(settings: "Settings", keys: Sequence["Key"]) -> Check:
    """The check of the keys."""
    over = [key.id for key in keys if key.expired]
    if settings.admin_key is None and settings.insecure:
        return Check(
            name="keys",
            status="warn",
            finding="no root key, and UNILLMREC_INSECURE: all who reach the service may do all",
            advice="set UNILLMREC_ADMIN_KEY (`openssl rand -hex 32` makes one): docs/security.md",
        )
    if settings.admin_key is None:
        stored = f"; the {len(keys):,} stored keys have no effect" if keys else ""
        return Check(
            name="keys",
            status="ok",
            finding=f"no root key: only programs on this machine have access{stored}",
        )
    if over:
        return Check(
            name="keys",
            status="warn",
            finding=f"{len(keys):,}, of which {len(over):,} have expired",
            advice=f"unillmrec keys revoke {over[0]}",
        )
    return Check(name="keys", status="ok", finding=f"a root key and {len(keys):,} others")


def _data_folder(settings: "Settings") -> Check:
    folder = settings.data_dir.absolute()
    if not folder.exists() and settings.redis_url is not None:
        return Check(name="data folder", status="ok", finding=f"{folder} will be made when needed")
    if not folder.exists():
        return Check(
            name="data folder",
            status="fail",
            finding=f"{folder} does not exist",
            advice="set UNILLMREC_DATA_DIR to the data folder of the service, or start it there",
        )
    try:
        with NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check(
            name="data folder",
            status="fail",
            finding=f"{folder} cannot be written: {error.strerror}",
            advice="repair its permissions, or set UNILLMREC_DATA_DIR to another one",
        )
    return Check(name="data folder", status="ok", finding=f"{folder} can be written")


def _store(settings: "Settings", server: "ServerReport") -> Iterator[Check]:
    kind = "embedded store" if settings.redis_url is None else "store"
    if server.nodes:
        kind = f"cluster of {len(server.nodes)} nodes"
    yield Check(
        name="store",
        status="ok",
        finding=f"{kind} answers, version {server.version}, {server.maxmemory_policy}",
    )
    for node in server.nodes or (server,):
        yield _persistence(node)
        yield _memory(node)


def _persistence(server: "ServerReport") -> Check:
    name = f"persistence {server.node}".rstrip()
    match server.persistence:
        case "none":
            return Check(
                name=name,
                status="warn",
                finding="the store loses its data at a restart",
                advice="set appendonly to yes on the server",
            )
        case "unknown":
            return Check(
                name=name,
                status="warn",
                finding="the store does not report whether it keeps its data over a restart",
                advice="ask its operator for an append-only file",
            )
        case kept:
            return Check(name=name, status="ok", finding=f"kept by {kept}")


def _memory(server: "ServerReport") -> Check:
    full = server.used_bytes / server.limit_bytes if server.limit_bytes else 0.0
    used = f"{server.used_bytes / 1e6:,.0f} MB used"
    if server.limit_bytes:
        used += f" of {server.limit_bytes / 1e6:,.0f} MB"
    return Check(
        name=f"memory {server.node}".rstrip(),
        status="warn" if full > _NEARLY_FULL else "ok",
        finding=used,
        advice="raise maxmemory before writes are refused" if full > _NEARLY_FULL else "",
    )


def _deletion(name: str) -> Check:
    if creation_of(name):  # a restore is filling it, or was interrupted
        return Check(
            name=f"catalogue {name}",
            status="warn",
            finding="a restore has not finished",
            advice="if none is running, a running service removes the keys within two minutes",
        )
    return Check(
        name=f"catalogue {name}",
        status="warn",
        finding="it is being deleted, and its name is taken until then",
        advice="a running service finishes it within half a minute, or: "
        f"DELETE /v1/catalogs/{name}?confirm={name}",
    )


def _unreadable(name: str, flaw: str) -> Check:
    return Check(
        name=f"catalogue {name}",
        status="fail",
        finding=flaw,
        advice=f"PUT /v1/catalogs/{name} replaces its settings, and its items stay; or delete "
        f"it: DELETE /v1/catalogs/{name}?confirm={name}",
    )


async def _catalogue(catalog: "Catalog") -> Check:
    from tree.inspect import violations

    name = f"catalogue {catalog.name}"
    try:
        tree = await catalog.store.load()
        waiting = sum([len(ids) async for ids in catalog.store.staged_ids()])
    except CorruptSnapshot as error:
        return Check(name=name, status="fail", finding=str(error), advice=_CORRUPT)
    except TreeError as error:
        return Check(name=name, status="fail", finding=str(error))
    broken = await asyncio.to_thread(violations, tree)
    if broken:
        return Check(
            name=name,
            status="fail",
            finding=f"{len(broken)} flaws in its tree, the first: {broken[0]}",
            advice=f"unillmrec rebuild --catalog {catalog.name}",
        )
    size = f"{len(tree):,} items, tree version {tree.version}"
    if waiting:
        return Check(
            name=name,
            status="warn",
            finding=f"{size}; {waiting:,} imported items have no place in the tree yet",
            advice="a running service places them within seconds, or: "
            f"unillmrec rebuild --catalog {catalog.name}",
        )
    return Check(name=name, status="ok", finding=f"{size}, no flaws")


async def _own_embedder(
    catalog: "Catalog", settings: "Settings", embedders: "EmbedderCache"
) -> AsyncIterator[Check]:
    """The check of a catalogue's own embedder."""
    from app.embedders import DEFAULT_EMBEDDER

    name, own = f"catalogue {catalog.name}, embedder", catalog.settings.embedder
    try:
        tree = await catalog.store.load()
        own = tree.settings.embedder
        await embedders.encode_interactive(tree.space, ["a test"], _MODEL_S)
    except CorruptSnapshot:  # another check reports it
        return
    except EmbedderUnavailable as error:
        yield Check(
            name=name,
            status="fail",
            finding=f"{own}: {error}",
            advice="until it answers, recommendations ignore texts, and writes and rebuilds fail. "
            f"To change it: unillmrec rebuild --catalog {catalog.name} "
            f"--embedder {DEFAULT_EMBEDDER}",
        )
        return
    if own != settings.embedder:
        yield Check(
            name=name,
            status="ok",
            finding=f"{own}; new catalogues get {settings.embedder}. To change it: unillmrec "
            f"rebuild --catalog {catalog.name} --embedder {settings.embedder}",
        )


async def _embedder(settings: "Settings") -> Check:
    """The check of the embedder for new catalogues."""
    from app.embedders import BUILT_IN, EmbedderCache

    try:
        with closing(EmbedderCache(settings.embedder_endpoint)) as embedders:
            await embedders.check(settings.embedder, _MODEL_S)
    except EmbedderUnavailable as error:
        return Check(
            name="embedder",
            status="fail",
            finding=str(error),
            advice="check UNILLMREC_EMBEDDER, _EMBEDDER_BASE_URL and _EMBEDDER_API_KEY",
        )
    name = settings.embedder
    label = f"the {name} embedder" if name in BUILT_IN else name
    finding = f"{label} works"
    kind, _, model = name.partition(":")
    if not embedders.is_local(kind) and model not in settings.llm_prices:
        finding += "; UNILLMREC_LLM_PRICES has no price for it, so only its tokens are counted"
    return Check(name="embedder", status="ok", finding=finding)


async def _model(settings: "Settings", models: "Models") -> Check:
    from app.llm import ModelError

    name, where = settings.llm_model, models.endpoint
    if name is None:
        return Check(
            name="model", status="ok", finding="none is set: items are ranked by vectors alone"
        )
    try:
        mode = await models.reply_mode(strict=True)
        unusable = await models.check()
    except ModelError as error:
        return Check(
            name="model",
            status="fail",
            finding=f"{name} at {where}: {error}",
            advice="check UNILLMREC_LLM_BASE_URL, _API_KEY and _MODEL",
        )
    if unusable:
        return Check(
            name="model",
            status="warn",
            finding=f"at {where} no usable answer from " + ", ".join(unusable),
            advice="set UNILLMREC_LLM_REPLY_MODE to another mode, or try another model",
        )
    learned = "; ".join(f"{one}: {', '.join(told)}" for one, told in models.learned().items())
    finding = f"{name} answers in the reply mode {mode}" + (f"; {learned}" if learned else "")
    return Check(name="model", status="ok", finding=finding)
