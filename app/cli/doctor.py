"""`doctor`: what is wrong with this installation, and what to do about it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from app.cli.check import Check
from app.cli.session import JsonOption, err, out, print_json, run
from app.cli.watching import bar
from tree.errors import CorruptSnapshot, EmbedderUnavailable, TreeError
from tree.store.torn import torn_files

if TYPE_CHECKING:
    from app.catalogs import Catalog
    from app.llm import Models
    from app.settings import Settings
    from tree.embedders import EmbedderCache
    from tree.store.server import ServerReport

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_NEARLY_FULL = 0.8
_PATIENCE_S = 30.0  # for a model to be loaded, or to answer
_CORRUPT = "unillmrec doctor --deep says what is missing; restore the store's data from a backup"


DeepOption: TypeAlias = Annotated[
    bool, typer.Option("--deep", help="Look at all that is stored, and name what is damaged.")
]


def doctor(as_json: JsonOption = False, deep: DeepOption = False) -> None:
    """Check data folder, store, catalogues, embedder and model settings; 1 if anything fails."""
    checks = run(_examined(quiet=as_json, deep=deep))
    failed = any(check.status == "fail" for check in checks)
    if as_json:
        print_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        table = Table("", "what", "finding", "what to do")
        for check in checks:
            style = _STYLES[check.status]
            cells = map(escape, (check.name, check.finding, check.advice))
            table.add_row(f"[{style}]{check.status}[/]", *cells)
        out.print(table)
    if failed:
        raise typer.Exit(1)


async def _examined(*, quiet: bool, deep: bool) -> list[Check]:
    from app.settings import Settings

    if deep:
        with bar(quiet=quiet) as progress:
            return [check async for check in _examine(Settings(), progress)]
    with nullcontext() if quiet else err.status("examining"):
        return [check async for check in _examine(Settings(), None)]


async def _examine(settings: "Settings", deep: Progress | None) -> AsyncIterator[Check]:
    """Every check in turn; with a progress bar to show it on, all that is stored."""
    from app.cli.deep import catalogue_checks, document_check
    from app.services import services

    yield await asyncio.to_thread(_data_folder, settings)
    try:
        async with services(settings, attach=True) as parts:
            for check in (*_store(settings, parts.server), *_torn(settings)):
                yield check
            if deep:
                yield await document_check(parts.documents)
            for catalog in await parts.catalogs.list():
                yield await _catalogue(catalog)
                if deep:
                    async for check in catalogue_checks(catalog.name, catalog.store, deep):
                        yield check
                async for check in _words(catalog, settings, parts.embedders):
                    yield check
            yield await _model(settings, parts.models)
    except TreeError as error:
        advice = "unillmrec doctor --deep looks at all that is stored; restore a backup"
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


def _data_folder(settings: "Settings") -> Check:
    folder = settings.data_dir.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
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
                finding="nothing is kept over a restart of the store",
                advice="set appendonly to yes on the server",
            )
        case "unknown":
            return Check(
                name=name,
                status="warn",
                finding="the store does not tell what it keeps over a restart",
                advice="ask whoever runs it for an append-only file",
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


async def _catalogue(catalog: "Catalog") -> Check:
    from tree.inspect import violations

    name = f"catalogue {catalog.name}"
    try:
        tree = await catalog.store.load()
        waiting = sum([len(ids) async for ids in catalog.store.staged()])
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
            advice="a service that runs gives them their place within seconds, or: "
            f"unillmrec rebuild --catalog {catalog.name}",
        )
    return Check(name=name, status="ok", finding=f"{size}, no flaws")


async def _words(
    catalog: "Catalog", settings: "Settings", embedders: "EmbedderCache"
) -> AsyncIterator[Check]:
    """Whether a catalogue's own embedder reads."""
    from tree.node import LEXICAL

    name, own = f"catalogue {catalog.name}, embedder", catalog.settings.embedder
    try:
        tree = await catalog.store.load()
        if tree.space.embedder != LEXICAL:
            await embedders.soon(tree.space, ["a test"], _PATIENCE_S)
    except CorruptSnapshot:  # which is told already
        return
    except EmbedderUnavailable as error:
        yield Check(
            name=name,
            status="fail",
            finding=f"{own}: {error}",
            advice="until it is back, words are left out of answers, no items are written and "
            "nothing is rebuilt; else: unillmrec export, DELETE /v1/catalogs/"
            f"{catalog.name}, create it again, unillmrec import",
        )
        return
    if own != settings.embedder:
        yield Check(
            name=name,
            status="ok",
            finding=f"{own}, as when it was created; new catalogues get {settings.embedder}",
        )


async def _embedder(settings: "Settings") -> Check:
    """That of new catalogues."""
    from app.llm.embeddings import embedders_for
    from tree.node import LEXICAL

    if settings.embedder == LEXICAL:
        return await asyncio.to_thread(_lexical)
    try:
        with closing(embedders_for(settings)) as embedders:
            await embedders.check(settings.embedder, _PATIENCE_S)
    except EmbedderUnavailable as error:
        return Check(
            name="embedder",
            status="fail",
            finding=str(error),
            advice="check UNILLMREC_EMBEDDER, _EMBEDDER_BASE_URL and _EMBEDDER_API_KEY",
        )
    return Check(name="embedder", status="ok", finding=f"{settings.embedder} works")


def _lexical() -> Check:
    from tree.embedders import LexicalEmbedder

    try:
        works = bool(LexicalEmbedder().encode(["a test"]).any())
    except ImportError as error:
        return Check(
            name="embedder",
            status="fail",
            finding=f"the lexical embedder lacks a library: {error}",
            advice="install what requirements.lock names",
        )
    return Check(
        name="embedder",
        status="ok" if works else "fail",
        finding="the lexical embedder works" if works else "the lexical embedder sees no text",
    )


async def _model(settings: "Settings", models: "Models") -> Check:
    from app.llm import ModelError

    name, where = settings.llm_model, models.endpoint
    if name is None:
        return Check(
            name="model", status="ok", finding="none configured: the embedded ranker answers"
        )
    try:
        mode = await models.reply_mode()
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
    return Check(name="model", status="ok", finding=f"{name} answers in the reply mode {mode}")
