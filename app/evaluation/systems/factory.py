"""Builds systems from names like `beam:diversity=0.3`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.embedders import DEFAULT_EMBEDDER, NAME_PATTERN
from app.evaluation.case import System
from app.evaluation.systems.neighbours import Als, ItemKnn
from app.evaluation.systems.scoring_baseline import Progress
from app.evaluation.systems.semantic import TFIDF, Semantic
from app.evaluation.systems.service_system import OnAnswer, ServiceOptions, ServiceSystem, Trees
from app.evaluation.systems.simple_baselines import Bm25, Popular, Random
from app.evaluation.systems.trained import Architecture, Trained
from app.llm import Models
from app.options import EffortName, StrategyName, TaskName
from app.settings import Settings
from prompts import Perspective


class UnknownSystem(ValueError):
    """An unknown system or parameter; the message lists the known ones."""


class _Parameters(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Embedded(_Parameters):
    signals: bool = False
    tuned: bool = False
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 0
    embedder: Annotated[str, Field(pattern=NAME_PATTERN)] = DEFAULT_EMBEDDER
    diversity: Annotated[float, Field(ge=0, le=1)] | None = None
    fold: bool = True
    exact_words: Annotated[float, Field(ge=0, le=4)] | None = None
    task: TaskName = "recommend"
    half_life_days: Annotated[float, Field(ge=0)] | None = None
    popularity_weight: Annotated[float, Field(ge=0, le=10)] | None = None
    cooccurrence_weight: Annotated[float, Field(ge=0, le=1_000)] | None = None


class _WithModel(_Embedded):
    effort: EffortName = "auto"
    perspective: Perspective | None = None


class _Paper(_WithModel):
    k: Annotated[int, Field(ge=1, le=50)] | None = None


class _Seeded(_Parameters):
    seed: Annotated[int, Field(ge=0)] = 0


class _Learned(_Seeded):
    share: Annotated[float, Field(gt=0, le=1)] = 1.0


class _Semantic(_Learned):
    embedder: Annotated[str, Field(pattern=rf"^{TFIDF}$|{NAME_PATTERN}")] = DEFAULT_EMBEDDER
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
    "beam": _WithModel,
    "walk": _WithModel,
    "paper": _Paper,
    "flat": _WithModel,
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
class EvalContext:
    """What systems are built from. `seed` is for systems whose name gives none; `on_answer` is
    called with each answer, `progress` with each step of the training."""

    settings: Settings
    models: Models | None = None
    seed: int = 0
    on_answer: OnAnswer = lambda _, __, ___: None
    progress: Progress = lambda _, __: None
    trees: Trees = field(default_factory=Trees)


def systems(names: Sequence[str], context: EvalContext) -> list[System]:
    """The systems with these names: `NAME` or `NAME:PARAMETER=VALUE,…`.

    `embedded` never uses a model; `beam` uses one where one is configured and otherwise equals
    `embedded`. Raises UnknownSystem, and MissingLibrary where an extra is needed.
    """
    if repeated := [name for at, name in enumerate(names) if name in names[:at]]:
        raise UnknownSystem(f"{repeated[0]!r} is named twice")
    return [_system_of(name, context) for name in names]


def _system_of(text: str, context: EvalContext) -> System:
    name, parameters = _parsed(text)
    if "seed" in type(parameters).model_fields and "seed" not in parameters.model_fields_set:
        parameters = parameters.model_copy(update={"seed": context.seed})
    if isinstance(parameters, _Embedded | _Semantic) and parameters.embedder != TFIDF:
        _check_endpoint(text, parameters.embedder, context)
    match parameters:
        case _Embedded():
            return _service_system(text, name, parameters, context)
        case _Semantic():
            return Semantic(text, embedders=context.trees.embedders, **parameters.model_dump())
        case _Als():
            return Als(text, **parameters.model_dump())
        case _ItemKnn():
            return ItemKnn(text, **parameters.model_dump())
        case _Trained():
            [architecture] = [one for one in get_args(Architecture) if one == name]
            return Trained(text, architecture, progress=context.progress, **parameters.model_dump())
    simple: dict[str, Callable[..., System]] = {
        "random": Random,
        "popular": Popular,
        "bm25": Bm25,
    }
    return simple[name](text, **parameters.model_dump())


def _check_endpoint(text: str, embedder: str, context: EvalContext) -> None:
    """Raises UnknownSystem for a remote embedder without an endpoint."""
    local = context.trees.embedders.is_local(embedder)
    if not local and not context.settings.embedder_endpoint.is_set:
        raise UnknownSystem(
            f"{text!r} needs an endpoint for embeddings: set UNILLMREC_EMBEDDER_BASE_URL, "
            "UNILLMREC_EMBEDDER_API_KEY, or both"
        )


def _service_system(text: str, name: str, parameters: _Embedded, context: EvalContext) -> System:
    [strategy] = [one for one in get_args(StrategyName) if one == name]
    configured = context.models is not None and context.models.configured
    chosen = {"effort", "perspective"} & parameters.model_fields_set
    needs_model = strategy in ("walk", "paper", "flat") or chosen
    if needs_model and not configured:
        raise UnknownSystem(
            f"{text!r} needs a model, and none is configured: set UNILLMREC_LLM_MODEL"
        )
    options = ServiceOptions(strategy=strategy, **parameters.model_dump())
    return ServiceSystem(
        text,
        options,
        context.settings,
        context.trees,
        context.models,
        context.on_answer,
        context.progress,
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
