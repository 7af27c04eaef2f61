"""What a store holds, against what a ledger says."""

from app.embedders import LexicalEmbedder
from tests.catalogs import id_of
from tests.conftest import Room
from tests.faults.ledger import Ledger
from tree.inspect import violations
from tree.store.redis_store import RedisTreeStore


async def replica(room: Room) -> RedisTreeStore:
    """Of the default catalogue, in this process, and as yet without a tree."""
    space, default = LexicalEmbedder().space, await id_of(room.client, prefix=room.prefix)
    return RedisTreeStore(room.client, default, space=space, prefix=room.prefix)


async def losses(room: Room, ledger: Ledger) -> list[str]:
    """What is not as it was acknowledged: a line for every item that is lost, stale or back, and
    for every flaw of the tree, which is loaded afresh."""
    store = await replica(room)
    tree = await store.load()
    found = violations(tree)
    records = await store.items([*ledger.held, *ledger.gone])
    for item_id, content in ledger.held.items():
        if item_id not in tree or item_id not in records:
            found.append(f"{item_id} was acknowledged and is lost")
        elif records[item_id].attributes != content["attributes"]:
            found.append(f"{item_id} is {records[item_id].attributes}: {content['attributes']}")
    found += [
        f"{item_id} was deleted and is back"
        for item_id in ledger.gone
        if item_id in tree or item_id in records
    ]
    return found
