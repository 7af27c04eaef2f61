"""All kinds of embedders, and the names that settings and clients use for them."""

from collections.abc import Sequence

from app.embedders.built_in import HYBRID, LEXICAL
from app.embedders.embedder import Embedder, EmbedderKind
from app.embedders.embedder_store import EmbedderStore
from app.embedders.hybrid_model import HybridModelKind
from app.embedders.minilm import MINILM
from app.embedders.openai_model import EndpointAddress, EndpointTimes, openai_kind
from app.embedders.sentence_model import SENTENCE_TRANSFORMERS
from app.embedders.spending import Spending
from app.embedders.tuned import TunedEmbedder, base_of, is_tuned
from tree.errors import EmbedderUnusable
from tree.node import Space

_NO_ENDPOINT = EndpointAddress()
_TIMES = EndpointTimes()


def embedder_kinds(
    endpoint: EndpointAddress = _NO_ENDPOINT,
    times: EndpointTimes = _TIMES,
    store: EmbedderStore | None = None,
    spending: Spending | None = None,
) -> tuple[EmbedderKind, ...]:
    """All kinds; `openai` models are at `endpoint`. A new kind is one more line here."""
    models = (MINILM, SENTENCE_TRANSFORMERS, openai_kind(endpoint, times, store, spending))
    return (HYBRID, LEXICAL, *models, *map(HybridModelKind, models))


_KINDS = embedder_kinds()


def _names(*, takes_model: bool) -> str:
    names = (kind.name for kind in _KINDS if kind.takes_model == takes_model)
    return "|".join(name.replace("+", r"\+") for name in names)


BUILT_IN = (HYBRID.name, LEXICAL.name)  # every service has them
DEFAULT_EMBEDDER = HYBRID.name
NAME_PATTERN = rf"^({_names(takes_model=False)}|({_names(takes_model=True)}):\S.*)$"


def parse_name(name: str, kinds: Sequence[EmbedderKind]) -> tuple[EmbedderKind, str]:
    """The kind and the model, which may be empty, of an embedder. Raises EmbedderUnusable."""
    own, colon, model = name.partition(":")
    kind = find_kind(own, kinds)
    if not kind.takes_model == bool(colon) == bool(model):
        raise _unknown(name, kinds)
    return kind, model


def find_kind(name: str, kinds: Sequence[EmbedderKind]) -> EmbedderKind:
    """The kind of this name. Raises EmbedderUnusable."""
    for kind in kinds:
        if kind.name == name:
            return kind
    raise _unknown(name, kinds)


def embedder_for(space: Space, kinds: Sequence[EmbedderKind] = _KINDS) -> Embedder:
    """The embedder that made the vectors of `space`. Raises EmbedderUnusable."""
    if is_tuned(space):
        return TunedEmbedder(space, embedder_for(base_of(space), kinds))
    return find_kind(space.embedder, kinds).open(space)


def first_space(name: str) -> Space:
    """The space of the first items of a catalogue with this embedder, which may be unknown here."""
    own = name.partition(":")[0]
    return next((kind.first_space for kind in _KINDS if kind.name == own), LEXICAL.first_space)


def _unknown(name: str, kinds: Sequence[EmbedderKind]) -> EmbedderUnusable:
    known = ", ".join(f"'{kind.name}{':MODEL' if kind.takes_model else ''}'" for kind in kinds)
    return EmbedderUnusable(f"unknown embedder {name!r}: this process has {known}")
