"""`CatalogPatch`: changes of the settings of a catalogue, as a JSON merge patch (RFC 7396)."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.api.bodies import merged
from app.api.problems import field_errors, invalid
from app.catalog_settings import (
    CatalogEnrichment,
    CatalogEventTypes,
    CatalogGuidance,
    CatalogObjective,
    CatalogSettings,
    ExperimentName,
    HalfLifeDays,
)
from app.event_types import EVENT_TYPES, EventType, EventTypeName
from app.options import EffortName, StrategyName
from app.rank_weights import Diversity, WeightChanges
from app.variants import CatalogVariants, Variant, VariantName, VariantSlots, allocated

_Valid = TypeVar("_Valid")

_TYPES: TypeAdapter[dict[str, EventType]] = TypeAdapter(CatalogEventTypes)
_VARIANTS: TypeAdapter[dict[str, Variant]] = TypeAdapter(CatalogVariants)


class EnrichmentPatch(BaseModel):
    """Changes of how a model describes items; what is not given stays."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    enabled: bool | None = None
    max_cost_usd_per_day: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="null: as the service has it."
    )
    images: bool | None = None


class EventTypePatch(BaseModel):
    """A type of events, or changes of one; null is the service's own meaning of that name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    weight: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = Field(
        default=None, description="A new type needs one."
    )
    hides: bool | None = None


class VariantPatch(BaseModel):
    """A variant, or changes of one; null is what the service has. Weights are merged, too."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    share: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Of all users; a new variant needs one."
    )
    strategy: StrategyName | None = None
    effort: EffortName | None = None
    diversity: Diversity | None = None
    weights: WeightChanges | None = None
    slots: VariantSlots | None = Field(
        default=None, description="The service writes it: what is given here changes nothing."
    )


class CatalogPatch(BaseModel):
    """Changes of the settings of a catalogue: what is not given stays, null is the default.

    A JSON merge patch (RFC 7396): variants and types of events are merged by name, each by field.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "guidance": "Outdoor gear; most buyers are beginners.",
                    "objective": "Prefer things that last.",
                },
                {"enrichment": {"enabled": True, "max_cost_usd_per_day": 0.5}},
                {"variants": {"diverse": {"share": 0.2, "diversity": 0.4}}},
                {"event_types": {"wishlist": {"weight": 0.7}, "shared": None}},
            ]
        },
    )

    guidance: CatalogGuidance | None = None
    objective: CatalogObjective | None = None
    enrichment: EnrichmentPatch | None = None
    event_types: dict[EventTypeName, EventTypePatch | None] | None = Field(
        default=None,
        description="Types of events by name: a new one, changes of one, or null to remove an own "
        "one and to give one of the service its own meaning again. See docs/events.md.",
    )
    half_life_days: HalfLifeDays | None = Field(
        default=None, description="null: counts of events do not fade."
    )
    variants: dict[VariantName, VariantPatch | None] | None = Field(
        default=None,
        description="Variants by name: a new one, changes of one, or null to end it. null instead "
        "of all of them ends all.",
    )
    experiment: ExperimentName | None = Field(
        default=None, description="Another name shuffles the users over the variants."
    )

    def of(self, settings: CatalogSettings) -> CatalogSettings:
        """The settings after these changes. Raises ApiError."""
        changed: dict[str, object] = {}
        if "guidance" in self.model_fields_set:
            changed["guidance"] = self.guidance or ""
        if "objective" in self.model_fields_set:
            changed["objective"] = self.objective or ""
        if self.enrichment is not None:
            given = self.enrichment.model_dump(exclude_unset=True)
            fields = CatalogEnrichment.model_fields
            given = {
                name: fields[name].default if value is None else value
                for name, value in given.items()
            }
            changed["enrichment"] = settings.enrichment.model_copy(update=given)
        elif "enrichment" in self.model_fields_set:
            changed["enrichment"] = CatalogEnrichment()
        if "event_types" in self.model_fields_set:
            changed["event_types"] = self._types_of(settings)
        if "half_life_days" in self.model_fields_set:
            changed["half_life_days"] = self.half_life_days
        if "variants" in self.model_fields_set:
            changed["variants"] = self._variants_of(settings)
        if "experiment" in self.model_fields_set:
            changed["experiment"] = self.experiment or ""
        return settings.model_copy(update=changed)

    def _types_of(self, settings: CatalogSettings) -> dict[str, EventType]:
        if self.event_types is None:
            return {}
        found = {name: one.model_dump() for name, one in settings.event_types.items()}
        for name, patch in self.event_types.items():
            if patch is None:
                found.pop(name, None)
                continue
            known = EVENT_TYPES.get(name)
            usual = {} if known is None else known.model_dump()
            changes = patch.model_dump(exclude_unset=True)
            found[name] = usual | merged(found.get(name, usual), changes)
        return _valid(_TYPES, found, "event_types")

    def _variants_of(self, settings: CatalogSettings) -> dict[str, Variant]:
        if self.variants is None:
            return {}
        before = {
            name: one.model_dump(exclude_none=True) for name, one in settings.variants.items()
        }
        changes = {
            name: None if one is None else one.model_dump(exclude_unset=True)
            for name, one in self.variants.items()
        }
        found = _valid(_VARIANTS, merged(before, changes), "variants")
        return allocated(found, settings.variants)


def _valid(kind: TypeAdapter[_Valid], found: object, field: str) -> _Valid:
    """What was merged, as settings. Raises ApiError: a new one may lack a field."""
    try:
        return kind.validate_python(found)
    except ValidationError as error:
        flaws = error.errors(include_url=False, include_input=False, include_context=False)
        for flaw in flaws:
            flaw["loc"] = (field, *flaw["loc"])
        raise invalid(field_errors(flaws, "body")) from error
