"""`Variant`: settings that some of the users get; `Variants`: which user gets which."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from secrets import randbelow
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from app.options import EffortName, StrategyName
from app.rank_weights import Diversity, WeightChanges

CONTROL = "default"
"""The variant of all users that no other one has: the settings of the service."""

SLOTS = 10_000  # a user is in one of them, by a hash
MOST_VARIANTS = 10

VariantName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.-]{1,64}$")]
_Range = Annotated[list[Annotated[int, Field(ge=0, le=SLOTS)]], Field(min_length=2, max_length=2)]
VariantSlots = Annotated[list[_Range], Field(max_length=SLOTS)]


class InvalidVariants(ValueError):
    """Variants that cannot exist together; the message says why."""


class UnknownVariant(ValueError):
    """A request names a variant that the catalogue does not have."""


class Variant(BaseModel):
    """Settings that a share of the users gets; what is not given is as the service has it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    share: float = Field(ge=0, le=1, description="Of all users; to four digits.")
    strategy: StrategyName | None = None
    effort: EffortName | None = None
    diversity: Diversity | None = None
    weights: WeightChanges | None = None
    slots: VariantSlots = Field(
        default=[],
        description="Which ten-thousandths of the users have it, as [first, after the last]. The "
        "service writes it, so that other users stay where they are when shares change.",
    )


def _checked(variants: dict[str, Variant]) -> dict[str, Variant]:
    check_variants(variants)
    return variants


CatalogVariants = Annotated[
    dict[VariantName, Variant], Field(max_length=MOST_VARIANTS), AfterValidator(_checked)
]


def check_variants(variants: Mapping[str, Variant]) -> None:
    """Raises InvalidVariants."""
    if len(variants) > MOST_VARIANTS:
        raise InvalidVariants(f"a catalogue has at most {MOST_VARIANTS} variants")
    if CONTROL in variants:
        raise InvalidVariants(f"{CONTROL!r} is the variant of the users that no other one has")
    if sum(_size(one) for one in variants.values()) > SLOTS:
        raise InvalidVariants("the shares of all variants must add up to at most 1")


def allocated(variants: Mapping[str, Variant], before: Mapping[str, Variant]) -> dict[str, Variant]:
    """The variants with their slots; as few as possible change hands.

    A variant that grows takes slots of nobody but the control, and one that shrinks gives them
    back: all other users stay in their variant. Raises InvalidVariants.
    """
    check_variants(variants)
    owners: list[str | None] = [None] * SLOTS
    for name, old in before.items():
        left = _size(variants[name]) if name in variants else 0
        for slot in _numbers(old.slots):
            if left and owners[slot] is None:
                owners[slot] = name
                left -= 1
    free = iter([slot for slot, owner in enumerate(owners) if owner is None])
    for name, new in variants.items():
        for _ in range(_size(new) - owners.count(name)):
            owners[next(free)] = name
    return {
        name: one.model_copy(update={"slots": _ranges(owners, name)})
        for name, one in variants.items()
    }


class Variants:
    """The variants of a catalogue, and who gets which.

    A user stays in one variant, whatever the process: the slot is a hash of the user's id and the
    name of the experiment. Another name shuffles all users.
    """

    def __init__(self, variants: Mapping[str, Variant] = {}, experiment: str = "") -> None:
        self._variants = allocated(variants, variants)
        self._experiment = experiment
        held = sorted(
            (first, end, name)
            for name, variant in self._variants.items()
            for first, end in variant.slots
        )
        self._firsts = [first for first, _, _ in held]
        self._held = held

    @property
    def names(self) -> list[str]:
        """All names, the control first."""
        return [CONTROL, *self._variants]

    def settings_of(self, name: str) -> Variant | None:
        """What a variant changes; None for the control."""
        return self._variants.get(name)

    def chosen(self, asked: str | None, user_id: str | None) -> str:
        """The name of the variant: the one that is asked for, or that of the user.

        Without a user, any by its share. Raises UnknownVariant.
        """
        if asked is not None:
            if asked not in self.names:
                known = ", ".join(self.names)
                raise UnknownVariant(f"there is no variant {asked!r}: this catalogue has {known}")
            return asked
        if not self._held:
            return CONTROL
        slot = randbelow(SLOTS) if user_id is None else self._slot_of(user_id)
        at = bisect_right(self._firsts, slot) - 1
        if at < 0:
            return CONTROL
        _, end, name = self._held[at]
        return name if slot < end else CONTROL

    def _slot_of(self, user_id: str) -> int:
        digest = sha256(f"{self._experiment}\0{user_id}".encode()).digest()
        return int.from_bytes(digest[:8]) % SLOTS


def _size(variant: Variant) -> int:
    """How many slots it has."""
    return max(round(variant.share * SLOTS), 1 if variant.share else 0)


def _numbers(ranges: Sequence[Sequence[int]]) -> Iterator[int]:
    for first, end in ranges:
        yield from range(first, min(end, SLOTS))


def _ranges(owners: Sequence[str | None], name: str) -> list[list[int]]:
    found: list[list[int]] = []
    for slot, owner in enumerate(owners):
        if owner == name:
            if found and found[-1][1] == slot:
                found[-1][1] = slot + 1
            else:
                found.append([slot, slot + 1])
    return found
