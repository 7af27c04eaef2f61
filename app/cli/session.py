"""What every command shares: its options, how it runs, and how it says what went wrong."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeAlias, TypeVar

import typer
from rich.console import Console

from tree.errors import TreeError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    from app.catalogs import Catalog
    from app.services import Services

CatalogOption: TypeAlias = Annotated[
    str, typer.Option("--catalog", "-c", help="The catalogue to work on.")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_INTERRUPTED = 130

_T = TypeVar("_T")


class Failed(Exception):
    """The command could not do what it was asked; the message is for the user."""


class Interrupted(Exception):
    """Ctrl-C; the message says what was done by then."""


def run(work: Coroutine[object, object, _T]) -> _T:
    """Run a command to its end; what goes wrong is one sentence and an exit code."""
    with explained():
        return asyncio.run(work)


@contextmanager
def explained() -> Iterator[None]:
    """Exit with a sentence instead of a traceback, where we know what happened."""
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
        stop(str(error))


def stop(reason: str, code: int = 1) -> NoReturn:
    """Say why on stderr and exit."""
    err.print(f"unillmrec: {reason}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(code)


@asynccontextmanager
async def opened(
    catalog: str, **settings: str | None
) -> AsyncIterator[tuple["Services", "Catalog"]]:
    """The services, straight over the store, and one catalogue; `settings` win unless None.

    Works beside a running service, whose embedded server it then uses.
    """
    from app.services import services
    from app.settings import Settings

    wanted = {name: value for name, value in settings.items() if value is not None}
    async with services(Settings.model_validate(wanted), attach=True) as parts:
        yield parts, await parts.catalogs.get(catalog)


def print_json(value: "BaseModel | dict[str, object]") -> None:
    """One JSON document on stdout."""
    text = (
        json.dumps(value, indent=2, ensure_ascii=False)
        if isinstance(value, dict)
        else value.model_dump_json(indent=2)
    )
    sys.stdout.write(text + "\n")


def _refusals() -> tuple[type[Exception], ...]:
    """What the service refuses; imported once something was raised, as commands need not."""
    from app.catalogs import UnknownCatalog
    from app.jobs import JobRunning
    from app.llm import ModelError
    from app.recommend.recommender import DeadlineExceeded

    return UnknownCatalog, JobRunning, ModelError, DeadlineExceeded


def _flaws(error: "ValidationError") -> str:
    parts = []
    for found in error.errors(include_url=False, include_input=False):
        place = ".".join(map(str, found["loc"]))
        parts.append(f"{place}: {found['msg']}" if place else found["msg"])
    return f"{error.title}: {'; '.join(parts)}"
