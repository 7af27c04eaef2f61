"""Labels after commits: later, together, and never over what somebody else wrote."""

import asyncio
from contextlib import suppress
from itertools import repeat

from app.curate.labels.label_writer import LabelWriter
from app.curate.labels.refresher import LabelRefresher
from app.llm import (
    ChatModel,
    Models,
    Price,
    Reply,
    ScriptedChat,
    Turn,
)
from app.settings import Settings
from tests.app.curate.labels.support import (
    assert_told_apart,
    eventually,
    groups_of,
    labels_by,
    signs_json,
)
from tests.servers.hostile import Behaviour
from tree.edits import DropItem, Relabel, Reshape
from tree.errors import StaleVersion
from tree.snapshot import SemanticTree


async def refreshed(shop, chat: ChatModel, **options) -> LabelRefresher:
    labels = labels_by(chat, shop.documents)
    options = {"delay_s": 0.02, "pause_s": 0.05, **options}
    return LabelRefresher(shop.store, labels, Settings(), **options)


async def test_reshaped_branches_are_labelled_later_and_together(demo, chat, hostile_server):
    refresher = await refreshed(demo, chat)
    try:
        tree = await demo.store.load()
        leaves = list(tree.leaves())
        locked, open_ = leaves[0].id, leaves[1].id
        tree = await demo.store.commit(
            [Relabel(locked, "Mine", "And mine", locked=True)], base=tree.version
        )
        edits = [reshape_of(tree, leaf.id) for leaf in leaves[:6]]
        refresher.note(tree, edits)
        assert refresher.waiting == 5
        await eventually(lambda: len(hostile_server.requests) >= 1 and not refresher.waiting)
        await eventually(lambda: signposted(demo, open_))
        after = await demo.store.load()
        assert_told_apart(after)
        assert after.node(locked).label == "Mine"
        families = {tree.node(leaf.id).parent for leaf in leaves[1:6]}
        assert len(hostile_server.requests) == len(families)
    finally:
        await refresher.aclose()


def reshape_of(tree: SemanticTree, leaf: int):
    return Reshape((), (tree.spec(tree.node(leaf)),))


async def signposted(shop, node: int) -> bool:
    return (await shop.store.load()).node(node).signpost.endswith(" has inside")


async def test_what_changed_while_the_model_thought_is_left_or_asked_again(
    shop, demo_items, plain_tree
):
    await shop.store.stage(demo_items)
    tree = await shop.store.replace(plain_tree, base=0)
    parent = next(node for node in tree.walk() if node.height == 1)
    renamed, emptied, *_ = tree.children(parent)
    items = list(tree.item_ids(emptied.id))
    asked: list[str] = []

    async def script(turn: Turn) -> Reply:
        asked.append(turn.messages[-1].content)
        if len(asked) == 1:  # meanwhile
            now = await shop.store.load()
            gone = [DropItem(item) for item in items[: len(items) // 2]]
            await shop.store.commit(
                [Relabel(renamed.id, "By hand", "Of an administrator"), *gone], base=now.version
            )
        return Reply(signs_json(turn.messages[-1].content))

    refresher = await refreshed(shop, ScriptedChat(script))
    try:
        refresher.note(tree, [reshape_of(tree, n.id) for n in (renamed, emptied)])
        await eventually(lambda: signposted(shop, emptied.id))
        after = await shop.store.load()
        assert after.node(renamed.id).label == "By hand"
        assert len(asked) == 2
        assert groups_of(asked[1]).keys() != groups_of(asked[0]).keys()
    finally:
        await refresher.aclose()


async def test_an_outage_delays_labels_and_a_hot_catalogue_costs_no_more_than_it_may(
    demo, chat, hostile_server
):
    hostile_server.play([Behaviour.BROKEN] * 8)
    tree = await demo.store.load()
    leaf = next(tree.leaves())
    refresher = await refreshed(demo, chat)
    try:
        refresher.note(tree, [reshape_of(tree, leaf.id)])
        await eventually(lambda: signposted(demo, leaf.id))
    finally:
        await refresher.aclose()

    labels = labels_by(chat, demo.documents, price=Price(1e6, 1e6))
    poor = LabelRefresher(demo.store, labels, Settings(llm_label_refresh_usd=0.01), delay_s=0.01)
    hostile_server.requests.clear()
    try:
        poor.note(tree, [reshape_of(tree, node.id) for node in tree.leaves()])
        await eventually(lambda: not poor.waiting)
        await poor.settled()
    finally:
        await poor.aclose()
    assert hostile_server.requests == []


async def test_the_queue_is_bounded_and_a_refusing_endpoint_empties_it(demo, chat, hostile_server):
    hostile_server.play(repeat(Behaviour.UNAUTHORIZED))
    tree = await demo.store.load()
    refresher = await refreshed(demo, chat)
    refresher.note(tree, [reshape_of(tree, node.id) for node in tree.leaves()])
    assert refresher.waiting == len(list(tree.leaves()))
    await refresher.settled()
    assert refresher.waiting == 0
    await refresher.aclose()
    silent = LabelRefresher(
        demo.store, LabelWriter(Models.none(demo.documents), Settings()), Settings()
    )
    silent.note(tree, [reshape_of(tree, next(tree.leaves()).id)])
    assert silent.waiting == 0


async def test_busy_writers_make_labels_wait_their_turn_and_no_label_is_lost(demo, chat):
    tree = await demo.store.load()
    leaves = [node.id for node in tree.leaves()]
    over = asyncio.Event()

    async def write() -> None:
        """Commits one after another, so that the version is hardly ever the one just loaded."""
        while not over.is_set():
            now = await demo.store.load()
            with suppress(StaleVersion):
                top = now.node(now.root.children[0])
                await demo.store.commit(
                    [Relabel(top.id, top.label, f"{now.version}")], base=now.version
                )

    refresher = await refreshed(demo, chat)
    writers = [asyncio.create_task(write()) for _ in range(2)]
    try:
        refresher.note(tree, [reshape_of(tree, leaf) for leaf in leaves])
        for leaf in leaves:
            await eventually(lambda leaf=leaf: signposted(demo, leaf))
    finally:
        over.set()
        await asyncio.gather(*writers)
        await refresher.aclose()
    assert_told_apart(await demo.store.load())
