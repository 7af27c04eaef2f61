"""What a store holds, against what a ledger says."""

from tests.conftest import Room
from tests.faults.traffic import Ledger
from tree.embedders import LexicalEmbedder
from tree.inspect import violations
from tree.store.redis import RedisTreeStore


def replica(room: Room) -> RedisTreeStore:
    """Of the default catalogue, in this process, and as yet without a tree."""
    return RedisTreeStore(room.client, "default", space=LexicalEmbedder().space, prefix=room.prefix)


async def assert_kept(room: Room, ledger: Ledger) -> None:
    """Every acknowledged write stands with its newest content, every deleted item is gone, and
    the tree is whole. Adds to `ledger.counts["lost"]`."""
    store = replica(room)
    tree = await store.load()
    assert violations(tree) == []
    records = await store.items([*ledger.held, *ledger.gone])
    lost = []
    for item_id, content in ledger.held.items():
        if item_id not in tree or item_id not in records:
            lost.append(f"{item_id} was acknowledged and is lost")
            continue
        found, wanted = records[item_id].attributes, content["attributes"]
        if found != wanted:
            lost.append(f"{item_id} holds revision {found} in place of {wanted}")
    lost += [
        f"{item_id} was deleted and is back"
        for item_id in ledger.gone
        if item_id in tree or item_id in records
    ]
    ledger.counts["lost"] += len(lost)
    assert lost == []
