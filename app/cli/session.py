"""What all commands share: options, opening the services, and reporting errors."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeAlias, TypeVar

import typer
from rich.console import Console
from rich.table import Column, Table

from tree.errors import TreeError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    from app.catalogs import Catalog
    from app.composition import Services

CatalogOption: TypeAlias = Annotated[
    str, typer.Option("--catalog", "-c", help="The catalogue to work on.")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_INTERRUPTED = 130

_T = TypeVar("_T")


class Failed(Exception):
    """The command failed; the message is for the user."""


class Interrupted(Exception):
    """The user pressed Ctrl-C; the message says what was done until then."""


def run(work: Coroutine[object, object, _T]) -> _T:
    """Run a command; an error becomes one sentence and an exit code."""
    with explained():
        return asyncio.run(work)


@contextmanager
def explained() -> Iterator[None]:
    """Exit with a sentence instead of a traceback for expected errors."""
    from pydantic import ValidationError

    try:
        yield
    except (Failed, TreeError) as error:
        stop(str(error))
    except ValidationError as error:
        stop(_flaws(error))
    except OSError as error:
        stop(f"{error.filename or 'the system'}: {error.strerror or error}")
    except Interrupted as error:
        stop(str(error), _INTERRUPTED)
    except KeyboardInterrupt:
        stop("stopped", _INTERRUPTED)
    except _refusals() as error:
        stop(_readable(str(error)))


def stop(reason: str, code: int = 1) -> NoReturn:
    """Print the reason on stderr and exit."""
    err.print(f"unillmrec: {reason}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(code)


@asynccontextmanager
async def opened(
    catalog: str, *, create: bool = False, **settings: str | None
) -> AsyncIterator[tuple["Services", "Catalog"]]:
    """Like `opened_store`, with one catalogue. Raises UnknownCatalog."""
    async with opened_store(create=create, **settings) as parts:
        yield parts, await parts.catalogs.get(catalog)


@asynccontextmanager
async def opened_store(
    *, create: bool = False, **settings: str | None
) -> AsyncIterator["Services"]:
    """The services over the store; `settings` that are not None override the environment.

    Works beside a running service, and then uses its embedded server. Makes a missing store or
    catalogue only with `create`. Raises StoreUnavailable.
    """
    from app.composition import services
    from app.settings import Settings

    wanted = {name: value for name, value in settings.items() if value is not None}
    async with services(Settings.model_validate(wanted), attach=True, create=create) as parts:
        yield parts


def table(*headings: str, whole: str = "", title: str | None = None) -> Table:
    """An empty table. Cells are wrapped, never cut, as they hold ids and commands to copy.

    The column `whole` is not wrapped.
    """
    columns = [Column(name, overflow="fold", no_wrap=name == whole) for name in headings]
    return Table(*columns, title=title)


def print_json(value: "BaseModel | dict[str, object]") -> None:
    """Print one JSON document on stdout."""
    text = (
        json.dumps(value, indent=2, ensure_ascii=False)
        if isinstance(value, dict)
        else value.model_dump_json(indent=2)
    )
    sys.stdout.write(text + "\n")


def _refusals() -> tuple[type[Exception], ...]:
    """The expected errors of the service; imported only after an error, to start fast."""
    from pydantic_settings import SettingsError

    from app.backup import BadArchive, RestoreRefused
    from app.catalogs import InvalidCatalogName, UnknownCatalog, UnknownEmbedder
    from app.jobs import JobRunning
    from app.llm import ModelError
    from app.recommend.recommender import DeadlineExceeded

    return (
        BadArchive, DeadlineExceeded, InvalidCatalogName, JobRunning, ModelError, RestoreRefused,
        SettingsError, UnknownCatalog, UnknownEmbedder,
    )  # fmt: skip


def _flaws(error: "ValidationError") -> str:
    """The errors, with the names of environment variables for settings."""
    from app.settings import PREFIX, Settings

    parts = []
    for found in error.errors(include_url=False, include_input=False):
        message = _readable(found["msg"].removeprefix("Value error, "))
        place = ".".join(map(str, found["loc"]))
        if error.title == Settings.__name__ and place:
            field = Settings.model_fields[str(found["loc"][0])]
            place = PREFIX + place.upper()
            if found["type"] == "string_pattern_mismatch":
                message = f"it does not have the right form. {field.description}"
        parts.append(f"{place}: {message}" if place else message)
    return "; ".join(parts)


def _readable(message: str) -> str:
    """The message; pydantic-settings' own one for invalid JSON is replaced by ours."""
    from app.settings import PREFIX, Settings

    name = re.search(r'^error parsing value for field "(\w+)"', message)
    if name is None:
        return message
    return (
        f"{PREFIX}{name[1].upper()}: it is not JSON. {Settings.model_fields[name[1]].description}"
    )
