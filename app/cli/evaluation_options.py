"""Options that all studies of `evaluate` have."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.session import JsonOption
from app.evaluation.choices import COMPARED, DataFormat

if TYPE_CHECKING:
    from app.llm import Models

OUT = Path("evaluation")


@dataclass(frozen=True, slots=True)
class Common:
    """Options of all studies: each field becomes an option of their commands. See study."""

    data: Annotated[
        list[Path],
        typer.Argument(
            help="A folder, or files: MIND, Amazon reviews, MovieLens, or plain JSON Lines.",
            exists=True,
        ),
    ]
    system: Annotated[
        list[str] | None,
        typer.Option(
            "--system", "-s", help="A system: NAME or NAME:PARAMETER=VALUE,…; may be repeated."
        ),
    ] = None
    format: Annotated[
        DataFormat | None, typer.Option("--format", help="Detected from the files unless given.")
    ] = None
    min_rating: Annotated[
        float | None, typer.Option(help="Leave out events without this rating or a higher one.")
    ] = None
    users: Annotated[
        int,
        typer.Option(
            "--users", "--readers", min=0, help="Number of users, chosen at random; 0 for all."
        ),
    ] = 1_000
    enrichments: Annotated[
        list[Path] | None,
        typer.Option(
            help='Lines of items, {"item_id", "text"}; may be repeated. A file in the folder of a '
            "data set is for that one.",
            exists=True,
            dir_okay=False,
        ),
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0
    out: Annotated[
        Path,
        typer.Option("--out", help="Folder of results.jsonl and report.html.", file_okay=False),
    ] = OUT
    record: Annotated[
        Path | None,
        typer.Option(help="Record replies of the model here.", dir_okay=False),
    ] = None
    replay: Annotated[
        Path | None,
        typer.Option(help="Use recorded replies instead of a model.", exists=True, dir_okay=False),
    ] = None
    as_json: JsonOption = False

    def systems(
        self, models: "Models", *with_model: str, usual: Sequence[str] = COMPARED
    ) -> list[str]:
        """The requested systems, or the usual ones; `with_model` are added where a model is."""
        if self.system:
            return self.system
        return [*(("beam", *with_model) if models.configured else ()), *usual]


def study(
    commands: typer.Typer, *, without: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that makes a study a command: its own options come first, then those of Common.

    The study gets the latter as one Common, in which the fields in `without` have their defaults,
    and `data` is empty.
    """

    def decorate(own: Callable[..., None]) -> Callable[..., None]:
        specific = list(signature(own).parameters.values())[1:]
        shared = [
            field for name, field in signature(Common).parameters.items() if name not in without
        ]

        @wraps(own)
        def command(**given: object) -> None:
            values = {"data": []} | {field.name: given.pop(field.name) for field in shared}
            own(Common(**values), **given)  # type: ignore[arg-type]  # typer has checked them

        options = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in (*specific, *shared)]
        command.__signature__ = Signature(options)  # type: ignore[attr-defined]  # typer reads it
        return commands.command()(command)

    return decorate
