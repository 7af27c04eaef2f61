"""`Catalog`: one catalogue that is served, with the parts that work on it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from app.attribution import Attributor
from app.catalog_settings import CatalogSettings
from app.curate import Curator
from app.event_types import EventRules
from app.recommend import Recommender
from app.signals import erase
from app.storage.documents import Documents
from app.storage.feedback import Feedback, User
from tree.item import Item
from tree.snapshot import SemanticTree
from tree.store.protocol import TreeStore


@dataclass(frozen=True, slots=True)
class Catalog:
    """One catalogue and the parts that work on it."""

    name: str
    id: str  # another catalogue of the same name has another id
    settings: CatalogSettings  # as it was created
    store: TreeStore
    curator: Curator
    recommender: Recommender
    feedback: Feedback
    documents: Documents
    events_per_user_day: int | None  # of one user that count; None for any number
    attributor: Attributor

    @property
    def event_rules(self) -> EventRules:
        """How events count that anybody may have sent."""
        return replace(self.settings.event_rules, most_per_day=self.events_per_user_day)

    def settings_of(self, tree: SemanticTree) -> CatalogSettings:
        """The settings with a tree of this catalogue: a rebuild may have changed the embedder."""
        return self.settings.model_copy(update={"embedder": tree.settings.embedder})

    async def apply_batch(self, puts: Sequence[Item], deletes: Collection[str]) -> dict[str, bool]:
        """See Curator. The counts and history entries of deleted items are deleted too."""
        done = await self.curator.apply_batch(puts, deletes)
        if deletes:
            await self.feedback.forget_items(deletes)
        return done

    async def put_user(self, user_id: str, user: User) -> None:
        """Store a user."""
        await self.feedback.put_user(user_id, user)

    async def erase_user(self, user_id: str) -> None:
        """Erase a user: their stored data, and the traces and profiles of their requests."""
        await erase(self.feedback, self.documents, user_id)
