"""`keys`: creates, lists and revokes keys."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from app.cli.remote import KeyFileOption, UrlOption, refusal, service
from app.cli.session import Failed, JsonOption, err, opened_store, out, print_json, run, table

if TYPE_CHECKING:
    from app.keys import Keyring, KeyView, NewKey

commands = typer.Typer(help="Create, list and revoke keys.", no_args_is_help=True)

_PAGE = 1_000


class ScopeName(StrEnum):
    """What a key may do."""

    RECOMMEND = "recommend"
    EVENTS = "events"
    INGEST = "ingest"
    METRICS = "metrics"
    ADMIN = "admin"


@commands.command("create")
def create(
    name: Annotated[str, typer.Argument(help="A name for people, shown in lists and logs.")],
    scope: Annotated[list[ScopeName], typer.Option("--scope", "-s", help="Once for each scope.")],
    catalog: Annotated[
        list[str], typer.Option("--catalog", "-c", help="Once for each catalogue, or '*' for all.")
    ],
    days: Annotated[
        float | None, typer.Option(min=0, max=36_525, help="Days until it expires.")
    ] = None,
    rate_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Most requests in a minute.")
    ] = None,
    usd_per_day: Annotated[
        float | None, typer.Option(min=0, help="Most that models may cost in a day.")
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            "--origin", help="The origin of a web page that uses the key: https://shop.example."
        ),
    ] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key, and print it: only once, because only its hash is stored."""
    ends = None if days is None else datetime.now(UTC) + timedelta(days=days)
    wanted: dict[str, object] = {
        "name": name,
        "scopes": [one.value for one in scope],
        "expires_at": ends and ends.isoformat(),
        "rate_per_minute": rate_per_minute,
        "max_cost_usd_per_day": usd_per_day,
        "origins": origin or [],
    }
    catalogs = [] if catalog == ["*"] else catalog
    new = run(_created(wanted, catalogs, url, key_file))
    if as_json:
        print_json(new)
    else:
        err.print(f"The key {new.id}, which is shown only now:", markup=False)
        out.print(new.key, markup=False, soft_wrap=True)


@commands.command("list")
def show(
    url: UrlOption = None, key_file: KeyFileOption = None, as_json: JsonOption = False
) -> None:
    """List the keys and what they allow; the keys themselves are not stored."""
    found = run(_listed(url, key_file))
    if as_json:
        print_json({"keys": [key.model_dump(mode="json") for key in found]})
        return
    rows = table("id", "name", "scopes", "catalogues", "expires", "limits", "origins", whole="id")
    for key in found:
        rows.add_row(*map(escape, _row(key)))
    out.print(rows if found else "no keys")


@commands.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="Its id, as `keys list` shows it.")],
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key; every process of the service refuses it within a second."""
    key_id = "_".join(key_id.split("_")[:2])  # a whole key begins with its id
    run(_revoked(key_id, url, key_file))
    if as_json:
        print_json({"revoked": key_id})
    else:
        out.print(f"{key_id} is revoked", markup=False)


async def _created(
    wanted: dict[str, object], catalogs: list[str], url: str | None, key_file: Path | None
) -> "NewKey":
    """A new key for these catalogues, or for all if there are none."""
    from pydantic_core import to_json

    from app.keys import COMMAND, KeyRequest, KeyView, NewKey, new_key
    from app.registry import check_name

    for catalog in catalogs:
        check_name(catalog)
    wanted["catalogs"] = catalogs or "*"
    request = KeyRequest.model_validate_json(to_json(wanted))
    if url is not None:
        async with service(url, key_file) as client:
            reply = await client.post("/v1/keys", json=request.model_dump(mode="json"))
        if reply.status_code != HTTPStatus.CREATED:
            raise Failed(refusal(reply))
        return NewKey.model_validate_json(reply.content)
    from app.keys import TooManyKeys

    key, token = new_key(request)
    view = KeyView.of(key)
    async with _keyring() as keyring:
        try:
            await keyring.add(key)
        except TooManyKeys as error:
            raise Failed(str(error)) from error
        await keyring.record("create_key", COMMAND, view.target())
    return NewKey(**view.model_dump(), key=token)


async def _listed(url: str | None, key_file: Path | None) -> list["KeyView"]:
    from app.keys import KeyView

    if url is None:
        async with _keyring() as keyring:
            return [KeyView.of(key) for key in await keyring.all()]
    found: list[KeyView] = []
    cursor: str | None = ""
    async with service(url, key_file) as client:
        while cursor is not None:
            at = {"limit": _PAGE} | ({"cursor": cursor} if cursor else {})
            reply = await client.get("/v1/keys", params=at)
            if reply.status_code != HTTPStatus.OK:
                raise Failed(refusal(reply))
            page = reply.json()
            found += map(KeyView.model_validate, page["keys"])
            cursor = page["next_cursor"]
    return found


async def _revoked(key_id: str, url: str | None, key_file: Path | None) -> None:
    if url is not None:
        async with service(url, key_file) as client:
            reply = await client.delete(f"/v1/keys/{key_id}")
        if reply.status_code != HTTPStatus.NO_CONTENT:
            raise Failed(refusal(reply))
        return
    from app.keys import COMMAND

    async with _keyring() as keyring:
        if not await keyring.revoke(key_id):
            raise Failed("there is no key with this id, or no longer: `keys list` shows them")
        await keyring.record("revoke_key", COMMAND, {"key_id": key_id})


@asynccontextmanager
async def _keyring() -> AsyncIterator["Keyring"]:
    """The keyring over the store, also beside a running service."""
    async with opened_store() as parts:
        yield parts.keyring


def _row(key: "KeyView") -> tuple[str, ...]:
    limits = []
    if key.rate_per_minute is not None:
        limits.append(f"{key.rate_per_minute:,} a minute")
    if key.max_cost_usd_per_day is not None:
        limits.append(f"${key.max_cost_usd_per_day:g} a day")
    ends = f"{key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else "never"
    return (
        key.id,
        key.name,
        ", ".join(key.scopes),
        "all" if key.catalogs == "*" else ", ".join(key.catalogs),
        f"{ends} (over)" if key.expired else ends,
        ", ".join(limits) or "none",
        ", ".join(key.origins) or "none",
    )
