"""Whatever a model says or does, labels tell siblings apart and the offline ones stand in."""

import json
import time
from collections import Counter
from itertools import repeat

import pytest

from app.curate.labels.label_writer import LabelWriter
from app.llm import (
    ModelRejected,
    Models,
    ModelUnavailable,
    Reply,
    ReplyMode,
    ScriptedChat,
    Turn,
)
from app.settings import Settings
from tests.app.curate.labels.support import (
    PRICE,
    assert_told_apart,
    groups_of,
    labels_by,
    said,
    signs_json,
    signs_text,
    written,
)
from tests.app.recommend.with_model.support import connected
from tests.servers.hostile import Behaviour


async def test_siblings_never_get_one_name(demo, demo_tree, chat, hostile_server):
    def all_the_same(prompt: str) -> str:
        signs = [{"n": n, "title": "Drama", "signpost": "Of one kind"} for n in groups_of(prompt)]
        return json.dumps({"signs": signs})

    hostile_server.content = all_the_same
    outcome = await written(demo, labels_by(chat, demo.documents), demo_tree)
    after = demo_tree.at_version(1).apply(outcome.edits)
    assert_told_apart(after)
    assert set(outcome.kept.values()) == {"refused"}
    renamed = {e.node for e in outcome.edits if e.label != demo_tree.node(e.node).label}
    parents = [demo_tree.node(node).parent for node in renamed]
    assert renamed
    assert len(set(parents)) == len(parents)


async def test_names_may_change_places_but_not_collide_with_one_that_stays(demo, plain_tree):
    parent = plain_tree.root
    first, second, third, *_ = plain_tree.children(parent)
    new = {first.label: second.label, second.label: first.label, third.label: parent.label}

    def swap(turn: Turn) -> Reply:
        found = groups_of(turn.messages[-1].content)
        by_label = {
            label: n for n, line in found.items() for label in new if line.startswith(label)
        }
        return said(*((n, new[label], "Inside") for label, n in by_label.items()))

    labels = labels_by(ScriptedChat(swap), demo.documents)
    nodes = [first.id, second.id, third.id]
    both = await written(demo, labels, plain_tree, nodes)
    names = {edit.node: edit.label for edit in both.edits}
    assert names == {first.id: second.label, second.id: first.label, third.id: parent.label}
    one = await written(demo, labels, plain_tree, [first.id, third.id])
    assert [edit.node for edit in one.edits] == [third.id]
    assert one.kept == {first.id: "refused"}


# -- when it goes wrong


NONSENSE = [
    Behaviour.INVENTED_NUMBERS, Behaviour.WRONG_SHAPE, Behaviour.EMPTY, Behaviour.NULL,
    Behaviour.REFUSAL, Behaviour.FOREIGN_PROSE, Behaviour.HUGE, Behaviour.NO_CHOICES,
    Behaviour.HALF_BODY, Behaviour.CUT_BY_LENGTH,
]  # fmt: skip


@pytest.mark.parametrize("behaviour", NONSENSE)
async def test_nonsense_leaves_the_offline_labels(
    demo, demo_tree, chat, hostile_server, behaviour: Behaviour
):
    hostile_server.play(repeat(behaviour))
    top = demo_tree.root.children
    outcome = await written(demo, labels_by(chat, demo.documents), demo_tree, top)
    assert outcome.edits == []
    assert outcome.kept == dict.fromkeys(top, "unreadable")
    assert len(hostile_server.requests) == 1 + len(top)  # at once, then in halves
    hostile_server.play([behaviour])
    mended = await written(demo, labels_by(chat, demo.documents), demo_tree, top)
    assert mended.labelled == len(top)


@pytest.mark.parametrize(
    "behaviour", [Behaviour.BROKEN, Behaviour.BUSY, Behaviour.RESET, Behaviour.HTML]
)
async def test_an_outage_is_waited_out_and_one_that_lasts_ends_the_work(
    demo, demo_tree, chat, hostile_server, behaviour: Behaviour
):
    hostile_server.play([behaviour] * 5)
    patient = labels_by(chat, demo.documents, patience_s=2)
    outcome = await written(demo, patient, demo_tree, demo_tree.root.children)
    assert (outcome.labelled, outcome.kept) == (len(demo_tree.root.children), {})
    hostile_server.play(repeat(behaviour))
    began = time.monotonic()
    outcome = await written(demo, labels_by(chat, demo.documents), demo_tree)
    assert time.monotonic() - began < 10
    assert outcome.labelled == len(demo_tree.root.children)  # paid for before
    assert Counter(outcome.kept.values()) == {
        "unavailable": demo_tree.node_count - 1 - outcome.labelled
    }


async def test_one_family_that_is_never_answered_does_not_stop_the_others(demo, demo_tree):
    def script(turn: Turn) -> Reply:
        if f"section: {demo_tree.root.label}" in turn.messages[-1].content:
            raise ModelUnavailable("too long for it", timed_out=True)
        return Reply(signs_json(turn.messages[-1].content))

    labels = labels_by(ScriptedChat(script), demo.documents, patience_s=1, llm_label_concurrency=2)
    outcome = await written(demo, labels, demo_tree)
    assert outcome.kept == dict.fromkeys(demo_tree.root.children, "unavailable")
    assert outcome.labelled == demo_tree.node_count - 1 - len(demo_tree.root.children)


@pytest.mark.parametrize("behaviour", [Behaviour.UNAUTHORIZED, Behaviour.UNKNOWN_MODEL])
async def test_our_own_mistakes_are_raised(demo, demo_tree, chat, hostile_server, behaviour):
    hostile_server.play(repeat(behaviour))
    with pytest.raises(ModelRejected):
        await written(demo, labels_by(chat, demo.documents), demo_tree)


async def test_an_endpoint_without_schemas_is_asked_for_text(demo, demo_tree, chat, hostile_server):
    hostile_server.content = signs_text
    hostile_server.play(repeat(Behaviour.NO_SCHEMAS))
    outcome = await written(demo, labels_by(chat, demo.documents), demo_tree)
    assert (outcome.labelled, outcome.kept) == (demo_tree.node_count - 1, {})


async def test_a_model_that_only_decides_writes_no_labels(demo, demo_tree, decisions_server):
    async with connected(decisions_server.base_url, "decider") as decider:
        labels = labels_by(decider, demo.documents, mode=ReplyMode.DECISIONS)
        outcome = await written(demo, labels, demo_tree)
    assert set(outcome.kept.values()) == {"no_text"}
    assert (outcome.edits, outcome.totals.calls) == ([], 0)


async def test_a_model_that_answers_nonsense_is_not_asked_again_and_again(
    demo, demo_tree, chat, hostile_server
):
    hostile_server.content = lambda _: "hello"
    outcome = await written(demo, labels_by(chat, demo.documents, mode=None), demo_tree)
    assert set(outcome.kept.values()) == {"unreadable"}
    assert len(hostile_server.requests) == 6  # two in each mode


async def test_without_a_model_nothing_is_asked(demo, demo_tree):
    labels = LabelWriter(Models.none(demo.documents), Settings())
    assert not labels.configured
    outcome = await written(demo, labels, demo_tree)
    assert set(outcome.kept.values()) == {"no_model"}
    assert (await labels.estimate(demo_tree, None, demo.store.items)).calls == 0


@pytest.mark.parametrize("mode", [ReplyMode.JSON_SCHEMA, ReplyMode.JSON_OBJECT, ReplyMode.TEXT])
async def test_random_weights_leave_the_offline_labels(demo, demo_tree, llama_url, mode):
    top = demo_tree.node(demo_tree.root.children[0])
    async with connected(llama_url, "tiny") as tiny:
        labels = labels_by(tiny, demo.documents, mode=mode, price=PRICE)
        outcome = await written(demo, labels, demo_tree, top.children)
    assert outcome.totals.calls >= 1
    assert set(outcome.kept) == set(top.children)
    assert set(outcome.kept.values()) <= {"refused", "unreadable"}
