"""Random histories of a catalogue, against a plain model of what it holds."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.contracts.support import (
    ODD_IDS,
    SETTINGS,
    content,
    item,
    put,
    shape,
)
from tree.edits import DropItem, Edit, NodeSpec, PutItem, Relabel, Reshape
from tree.item import Item
from tree.node import ROOT

# -- random histories


@dataclass
class Model:
    """What the catalogue should hold, in dicts; makes edits that fit."""

    leaves: dict[int, list[str]] = field(default_factory=lambda: {ROOT: []})
    children: dict[int, tuple[int, ...]] = field(default_factory=dict)
    labels: dict[int, str] = field(default_factory=lambda: {ROOT: "All items"})
    puts: dict[str, PutItem] = field(default_factory=dict)
    node_ids: count = field(default_factory=lambda: count(1))

    def content(self) -> dict[str, tuple[int, bytes, bytes, str, float, int]]:
        return {
            item_id: (leaf, at.vector, at.terms, at.domain, at.popularity, at.line)
            for leaf, ids in self.leaves.items()
            for item_id in ids
            for at in (self.puts[item_id],)
        }

    def shape(self) -> dict[int, tuple[str, tuple[int, ...]]]:
        return {node: (label, self.children.get(node, ())) for node, label in self.labels.items()}

    def records(self) -> dict[str, Item]:
        return {item_id: Item.stored(at.record) for item_id, at in self.puts.items()}

    def edits(self, move: str, item_id: str, number: int) -> Iterable[Edit]:
        """The edits of one move, done here too; none where the move does not fit."""
        leaf = sorted(self.leaves)[number % len(self.leaves)]
        place = next((leaf for leaf, ids in self.leaves.items() if item_id in ids), None)
        match move:
            case "put" if place == leaf or (self._room(leaf) and self._spare(place)):
                yield self._put(item_id, place, leaf, number)
            case "drop" if self._spare(place):
                self._forget(item_id, place)
                yield DropItem(item_id)
            case "renew" if place is not None:
                self._forget(item_id, place)
                yield DropItem(item_id)
                yield self._put(item_id, None, place, number)
            case "vanish" if place is None and self._room(leaf):
                yield put(item_id, leaf, number)
                yield DropItem(item_id)
            case "split" if len(self.leaves[leaf]) > 1:
                yield self._split(leaf)
            case "merge":
                yield from self._merged(number)
            case "relabel":
                self.labels[leaf] = f"label {number}"
                yield Relabel(leaf, self.labels[leaf], "signpost")

    def _room(self, leaf: int) -> bool:
        return len(self.leaves[leaf]) < SETTINGS.leaf_capacity

    def _spare(self, leaf: int | None) -> bool:
        """Whether an item can go from there: only the root may be an empty leaf."""
        return leaf in (None, ROOT) or len(self.leaves[leaf]) > 1

    def _put(self, item_id: str, place: int | None, leaf: int, seed: int) -> PutItem:
        self._forget(item_id, place)
        self.leaves[leaf].append(item_id)
        self.puts[item_id] = put(item_id, leaf, seed)
        return self.puts[item_id]

    def _forget(self, item_id: str, place: int | None) -> None:
        if place is not None:
            self.leaves[place].remove(item_id)
        self.puts.pop(item_id, None)

    def _split(self, leaf: int) -> Reshape:
        ids = self.leaves.pop(leaf)
        halves = ids[::2], ids[1::2]
        self.children[leaf] = next(self.node_ids), next(self.node_ids)
        specs = [NodeSpec(leaf, self.labels[leaf], children=self.children[leaf])]
        for node, half in zip(self.children[leaf], halves, strict=True):
            self.leaves[node], self.labels[node] = list(half), f"half {node}"
            specs.append(NodeSpec(node, self.labels[node], items=tuple(half)))
        return Reshape((), tuple(specs))

    def _merged(self, number: int) -> Iterable[Reshape]:
        parents = [
            node
            for node, children in self.children.items()
            if all(child in self.leaves for child in children)
            and sum(len(self.leaves[child]) for child in children) <= SETTINGS.leaf_capacity
        ]
        if parents:
            node = parents[number % len(parents)]
            gone = self.children.pop(node)
            ids = [item_id for child in gone for item_id in self.leaves.pop(child)]
            for child in gone:
                del self.labels[child]
            self.leaves[node] = ids
            yield Reshape(gone, (NodeSpec(node, self.labels[node], items=tuple(ids)),))


MOVES = ["put", "put", "put", "drop", "renew", "vanish", "split", "split", "merge", "relabel"]
IDS = [*ODD_IDS, *(f"item {number}" for number in range(12))]
move = st.tuples(st.sampled_from(MOVES), st.sampled_from(IDS), st.integers(0, 99))
step = st.one_of(
    st.lists(move, min_size=1, max_size=8),
    st.lists(move, min_size=1, max_size=8),
    st.sampled_from(["compact", "replace", "stage"]),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(step, min_size=1, max_size=10))
async def test_any_history_is_what_every_reader_sees(open_store, steps):
    catalog, model = token_hex(4), Model()
    writer, follower = open_store(catalog), open_store(catalog)
    for number, current in enumerate(steps):
        tree = await writer.load()
        if current == "compact":
            await writer.compact()
        elif current == "replace":
            await writer.replace(tree, base=tree.version)
        elif current == "stage":
            await writer.stage([item(f"staged {number}")])
        else:
            edits = [edit for one in current for edit in model.edits(*one)]
            written = await writer.commit(edits, base=tree.version)
            assert written.version == tree.version + 1
            assert await follower.changes(since=tree.version) == [
                structs.replace(edit, record=b"") if isinstance(edit, PutItem) else edit
                for edit in edits
            ]
        for reader in (writer, follower, open_store(catalog)):
            seen = await reader.load()
            assert content(seen) == model.content()
            assert shape(seen) == model.shape()
        assert await writer.items(IDS) == model.records()
        writer, follower = follower, writer
    await writer.drop()
