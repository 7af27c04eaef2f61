"""From names such as `beam:diversity=0.3` to systems."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.evaluation.case import System
from app.evaluation.systems.neighbours import Als, ItemKnn
from app.evaluation.systems.ours import Asked, Heard, Ours, Trees
from app.evaluation.systems.plain import Bm25, Popular, Random
from app.evaluation.systems.scored import Progress
from app.evaluation.systems.semantic import TFIDF, Semantic
from app.evaluation.systems.trained import Architecture, Trained
from app.llm import Models
from app.llm.embeddings import OPENAI, embedders_for, endpoint_of
from app.recommend.effort import EffortName
from app.settings import Settings
from prompts import Perspective
from tree.embedders import SENTENCES
from tree.node import LEXICAL

_EMBEDDER = rf"^({LEXICAL}|({SENTENCES}|{OPENAI}):.+)$"
_Ours = Literal["embedded", "beam", "paper", "flat"]


class UnknownSystem(ValueError):
    """A name that is no system's, or a parameter that it does not take; the message lists both."""


class _Parameters(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Embedded(_Parameters):
    signals: bool = False
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 0
    embedder: Annotated[str, Field(pattern=_EMBEDDER)] = LEXICAL
    diversity: Annotated[float, Field(ge=0, le=1)] | None = None


class _Asking(_Embedded):
    effort: EffortName = "balanced"
    perspective: Perspective | None = None


class _Paper(_Asking):
    k: Annotated[int, Field(ge=1, le=50)] | None = None


class _Seeded(_Parameters):
    seed: Annotated[int, Field(ge=0)] = 0


class _Learned(_Seeded):
    share: Annotated[float, Field(gt=0, le=1)] = 1.0


class _Semantic(_Learned):
    embedder: Annotated[str, Field(pattern=rf"^{TFIDF}$|{_EMBEDDER}")] = LEXICAL
    popularity: Annotated[float, Field(ge=0)] = 0.0


class _Als(_Learned):
    factors: Annotated[int, Field(ge=1)] = 64
    epochs: Annotated[int, Field(ge=1)] = 15


class _ItemKnn(_Learned):
    neighbours: Annotated[int, Field(ge=1)] = 100


class _Trained(_Learned):
    epochs: Annotated[int, Field(ge=1)] = 50
    seconds: Annotated[float, Field(gt=0)] = 900.0


_PARAMETERS: dict[str, type[_Parameters]] = {
    "embedded": _Embedded,
    "beam": _Asking,
    "paper": _Paper,
    "flat": _Asking,
    "semantic": _Semantic,
    "random": _Seeded,
    "popular": _Learned,
    "bm25": _Parameters,
    "itemknn": _ItemKnn,
    "als": _Als,
    **dict.fromkeys(get_args(Architecture), _Trained),
}
NAMES = tuple(_PARAMETERS)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What systems are made with: `seed` for those that name none. `heard` and `progress` are told
    how far they are."""

    settings: Settings
    models: Models | None = None
    seed: int = 0
    heard: Heard = lambda _, __, ___: None
    progress: Progress = lambda _, __: None
    trees: Trees = field(default_factory=Trees)


def systems(names: Sequence[str], around: Surroundings) -> list[System]:
    """The systems of these names: `NAME` or `NAME:PARAMETER=VALUE,…`.

    `embedded` never asks a model; `beam` asks one where one is configured, and is the same as
    `embedded` where none is. Raises UnknownSystem, and MissingLibrary where an extra is needed.
    """
    if twice := [name for at, name in enumerate(names) if name in names[:at]]:
        raise UnknownSystem(f"{twice[0]!r} is named twice")
    return [_made(name, around) for name in names]


def _made(text: str, around: Surroundings) -> System:
    name, parameters = _parsed(text)
    if "seed" in type(parameters).model_fields and "seed" not in parameters.model_fields_set:
        parameters = parameters.model_copy(update={"seed": around.seed})
    if isinstance(parameters, _Embedded | _Semantic) and parameters.embedder.startswith(OPENAI):
        _give_access(text, around)
    match parameters:
        case _Embedded():
            return _ours(text, name, parameters, around)
        case _Semantic():
            return Semantic(text, embedders=around.trees.embedders, **parameters.model_dump())
        case _Als():
            return Als(text, **parameters.model_dump())
        case _ItemKnn():
            return ItemKnn(text, **parameters.model_dump())
        case _Trained():
            [architecture] = [one for one in get_args(Architecture) if one == name]
            return Trained(text, architecture, progress=around.progress, **parameters.model_dump())
    simple: dict[str, Callable[..., System]] = {
        "random": Random,
        "popular": Popular,
        "bm25": Bm25,
    }
    return simple[name](text, **parameters.model_dump())


def _give_access(text: str, around: Surroundings) -> None:
    """Let the trees have what the settings give access to. Raises UnknownSystem."""
    if not endpoint_of(around.settings).configured:
        raise UnknownSystem(
            f"{text!r} needs an endpoint for embeddings: set UNILLMREC_EMBEDDER_BASE_URL, "
            "UNILLMREC_EMBEDDER_API_KEY, or both"
        )
    if not around.trees.embedders.has(OPENAI):
        around.trees.embedders = embedders_for(around.settings)


def _ours(text: str, name: str, parameters: _Embedded, around: Surroundings) -> System:
    [strategy] = [one for one in get_args(_Ours) if one == name]
    configured = around.models is not None and around.models.configured
    asks = strategy in ("paper", "flat") or {"effort", "perspective"} & parameters.model_fields_set
    if asks and not configured:
        raise UnknownSystem(
            f"{text!r} asks a model, and none is configured: set UNILLMREC_LLM_MODEL"
        )
    asked = Asked(strategy=strategy, **parameters.model_dump())
    return Ours(
        text, asked, around.settings, around.trees, around.models, around.heard, around.progress
    )


def _parsed(text: str) -> tuple[str, _Parameters]:
    name, _, rest = text.partition(":")
    known = _PARAMETERS.get(name)
    if known is None:
        raise UnknownSystem(f"there is no system {name!r}: the names are {', '.join(NAMES)}")
    pairs = [part.partition("=") for part in rest.split(",")] if rest else []
    given = {key.strip(): value.strip() for key, _, value in pairs}
    takes = ", ".join(known.model_fields) or "no parameters"
    if len(given) < len(pairs) or not all(sign for _, sign, _ in pairs):
        raise UnknownSystem(f"{text!r} is not NAME:PARAMETER=VALUE,…; {name} takes {takes}")
    try:
        return name, known.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        what = "is not known" if first["type"] == "extra_forbidden" else first["msg"]
        raise UnknownSystem(f"{text!r}: {where} {what}; {name} takes {takes}") from error
