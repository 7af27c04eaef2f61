"""`OwnerSettings`: what the owner of a catalogue has set, as its curator reads it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.budget import SharedBudget
from app.registry import Registry, RegistryEntry


@dataclass(frozen=True, slots=True)
class EnrichmentOptions:
    """How a model describes items. `guidance` are the owner's words about the catalogue."""

    guidance: str = ""
    enabled: bool = False  # whether new and changed items get lines by themselves
    max_cost_usd_per_day: float | None = None  # of these; None: as the service has it
    images: bool = False  # whether the model sees pictures of items


async def newest_options(registry: Registry, entry: RegistryEntry) -> EnrichmentOptions:
    """What the owner has set last; nothing is enabled where the catalogue is gone."""
    now = await registry.look(entry.name)
    if now is None or now.id != entry.id:
        return EnrichmentOptions()
    chosen = now.settings.enrichment
    return EnrichmentOptions(
        now.settings.guidance, chosen.enabled, chosen.max_cost_usd_per_day, chosen.images
    )


async def _default_options() -> EnrichmentOptions:
    return EnrichmentOptions()


@dataclass(frozen=True, slots=True)
class OwnerSettings:
    """The language of a catalogue, and what may change while it is open.

    `day_budget` is what lines of this catalogue may cost in a day, shared by all processes.
    """

    language: str = "en"
    enrichment: Callable[[], Awaitable[EnrichmentOptions]] = _default_options
    day_budget: Callable[[float], SharedBudget] | None = None

    async def guidance(self) -> str:
        """What the owner says of the catalogue, as last set. Raises StoreUnavailable."""
        return (await self.enrichment()).guidance
