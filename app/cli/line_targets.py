"""The catalogue that a command changes: in the store, or in a running service."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from app.cli.progress import watch
from app.cli.remote import refusal, service
from app.cli.session import Failed, opened

if TYPE_CHECKING:
    import httpx2

    from app.catalogs import Catalog
    from app.composition import Services
    from app.curate import EnrichmentParams, LineResult, TuningParams
    from app.jobs import Job
    from tree.item_line import ItemLine

_SENT_AT_ONCE = 500
_LONGEST_PAUSE_S = 60.0


class Target(Protocol):
    """A catalogue, here or in a running service."""

    async def set_lines(self, lines: "Mapping[str, ItemLine | None]") -> "dict[str, LineResult]":
        """What became of each line."""
        ...

    async def items(self) -> int:
        """How many items it has."""
        ...

    async def enrich(self, params: "EnrichmentParams", *, quiet: bool) -> "Job":
        """The ended job in which a model writes lines."""
        ...

    async def rebuild(self, *, quiet: bool) -> "Job":
        """The ended rebuild."""
        ...

    async def tune(self, params: "TuningParams", *, quiet: bool) -> "Job":
        """The ended job that learns from histories."""
        ...


@asynccontextmanager
async def line_target(
    catalog: str, url: str | None, key_file: Path | None
) -> AsyncIterator[Target]:
    """The catalogue to write to; a running service with `url`."""
    if url is None:
        async with opened(catalog) as (parts, found):
            yield _Here(parts, found)
    else:
        async with service(url, key_file) as client:
            yield _There(client, f"/v1/catalogs/{catalog}")


class _Here:
    """The catalogue in the store."""

    def __init__(self, parts: "Services", catalog: "Catalog") -> None:
        self._parts = parts
        self._catalog = catalog

    async def set_lines(self, lines: "Mapping[str, ItemLine | None]") -> "dict[str, LineResult]":
        return await self._catalog.curator.set_lines(lines, can_wait=True)

    async def items(self) -> int:
        return len(await self._catalog.store.load())

    async def enrich(self, params: "EnrichmentParams", *, quiet: bool) -> "Job":
        job = await self._catalog.curator.start_enrichment(params)
        return await watch(job, self._parts.jobs.get, quiet=quiet)

    async def rebuild(self, *, quiet: bool) -> "Job":
        job = await self._catalog.curator.start_rebuild()
        return await watch(job, self._parts.jobs.get, quiet=quiet)

    async def tune(self, params: "TuningParams", *, quiet: bool) -> "Job":
        job = await self._catalog.curator.start_tuning(params)
        return await watch(job, self._parts.jobs.get, quiet=quiet)


class _There:
    """The catalogue in a running service."""

    def __init__(self, client: "httpx2.AsyncClient", path: str) -> None:
        self._client = client
        self._path = path

    async def set_lines(self, lines: "Mapping[str, ItemLine | None]") -> "dict[str, LineResult]":
        results: dict[str, LineResult] = {}
        rows = [{"item_id": item_id, "text": line and line.text} for item_id, line in lines.items()]
        for start in range(0, len(rows), _SENT_AT_ONCE):
            body: dict[str, object] = {"lines": rows[start : start + _SENT_AT_ONCE]}
            reply = await self._patiently(f"{self._path}/enrichments:batch", body)
            for row in reply.json()["results"]:
                status = row["status"]
                if status == "rejected":
                    raise Failed(f"the service refused a line: {row['problem']}")
                results[row["item_id"]] = "unknown" if status == "unknown_item" else status
        return results

    async def items(self) -> int:
        reply = await self._client.get(self._path)
        if reply.status_code != HTTPStatus.OK:
            raise Failed(refusal(reply))
        return int(reply.json()["items"])

    async def enrich(self, params: "EnrichmentParams", *, quiet: bool) -> "Job":
        reply = await self._client.post(
            f"{self._path}/enrichments", json=params.model_dump(mode="json")
        )
        if reply.status_code != HTTPStatus.ACCEPTED:
            raise Failed(refusal(reply))
        return await self._ended(reply, quiet=quiet)

    async def rebuild(self, *, quiet: bool) -> "Job":
        reply = await self._client.post(f"{self._path}/tree/rebuilds", json={})
        if reply.status_code != HTTPStatus.ACCEPTED:
            raise Failed(f"the lines are set, but the tree was not rebuilt: {refusal(reply)}")
        return await self._ended(reply, quiet=quiet)

    async def tune(self, params: "TuningParams", *, quiet: bool) -> "Job":
        reply = await self._client.post(
            f"{self._path}/tunings", json=params.model_dump(mode="json")
        )
        if reply.status_code != HTTPStatus.ACCEPTED:
            raise Failed(refusal(reply))
        return await self._ended(reply, quiet=quiet)

    async def _ended(self, started: "httpx2.Response", *, quiet: bool) -> "Job":
        from app.jobs import Job

        async def read(job_id: str) -> Job | None:
            found = await self._client.get(f"/v1/jobs/{job_id}")
            return Job.model_validate_json(found.content) if found.is_success else None

        return await watch(Job.model_validate_json(started.content), read, quiet=quiet)

    async def _patiently(self, path: str, body: dict[str, object]) -> "httpx2.Response":
        """The answer; a service that has too much to do is asked again when it says so."""
        while True:
            reply = await self._client.post(path, json=body)
            if reply.status_code == HTTPStatus.OK:
                return reply
            pause = reply.headers.get("retry-after", "")
            if reply.status_code != HTTPStatus.TOO_MANY_REQUESTS or not pause.isdecimal():
                raise Failed(refusal(reply))
            await asyncio.sleep(min(float(pause), _LONGEST_PAUSE_S))
