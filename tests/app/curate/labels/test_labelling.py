"""Labels by a model: asked over HTTP, paid for once, on a budget."""

import asyncio
from collections import Counter
from functools import partial

import pytest

from app.composition import services
from app.curate.labels.label_writer import LabelWriter
from app.jobs import JobReport
from app.llm import (
    Reply,
    ScriptedChat,
    Turn,
    UsageTotals,
)
from app.llm.tokens import estimated_tokens
from app.settings import Settings
from prompts import owner_note
from tests.app.curate.labels.support import (
    PRICE,
    assert_told_apart,
    eventually,
    groups_of,
    inner,
    labels_by,
    renumbered,
    signs_json,
    written,
)
from tree.edits import Relabel
from tree.item import normalise
from tree.node import ROOT

# -- a whole tree


async def test_a_whole_draft_is_labelled_and_one_question_asks_for_all_siblings(
    demo, demo_tree, chat, hostile_server
):
    locked = next(node.id for node in demo_tree.leaves() if not node.key)
    draft = demo_tree.at_version(1).apply([Relabel(locked, "Mine", "And mine", locked=True)])
    report = JobReport.unwatched()
    labels = labels_by(chat, demo.documents)
    outcome = await labels.write(draft, None, demo.store.items, labels.budget(), report)
    assert outcome.labelled == draft.node_count - 2
    assert outcome.kept == {}
    assert len(hostile_server.requests) == outcome.totals.calls == len(inner(draft))
    assert report.job.progress.done == report.job.progress.total == outcome.labelled

    after = draft.apply(outcome.edits)
    assert_told_apart(after)
    assert after.root.label == draft.root.label
    assert (after.node(locked).label, after.node(locked).signpost) == ("Mine", "And mine")
    own = 0
    for node in after.walk():
        if node.id in (ROOT, locked):
            continue
        assert node.signpost.endswith(" has inside")
        stays = bool(node.key) and normalise(draft.node(node.id).label) == node.key[-1]
        own += stays
        assert node.label == draft.node(node.id).label if stays else node.label[:4] == "New "
    assert 0 < own < outcome.labelled


async def test_a_question_shows_what_is_inside_and_beside(demo, demo_tree, chat, hostile_server):
    parent = next(node for node in demo_tree.walk() if node.height == 1 and node.parent != ROOT)
    asked, *others = demo_tree.children(parent)
    labels = labels_by(chat, demo.documents)
    await written(demo, labels, demo_tree, [asked.id])
    (request,) = hostile_server.requests
    system, user = (message["content"] for message in request["messages"])
    assert list(groups_of(user)) == [1]
    assert asked.label in groups_of(user)[1]
    records = await demo.store.items(list(demo_tree.item_ids(asked.id)))
    assert sum(item.title in groups_of(user)[1] for item in records.values()) >= 3
    for node in others:
        assert f"\n- {node.label}\n" in user
    assert f"section: {' › '.join(n.label for n in demo_tree.path(parent.id))}" in user
    assert not any(item.title in system for item in records.values())


async def test_the_top_of_the_tree_comes_first(demo, demo_tree, chat, hostile_server):
    labels = labels_by(chat, demo.documents, llm_label_concurrency=1)
    await written(demo, labels, demo_tree)
    sections = [
        body["messages"][-1]["content"].split("section: ")[1].split("\n")[0]
        for body in hostile_server.requests
    ]
    depths = [0 if name == demo_tree.root.label else name.count(" › ") + 1 for name in sections]
    assert depths == sorted(depths)
    assert depths[0] == 0 < depths[-1]


# -- paid once


async def test_what_a_killed_run_has_paid_for_is_not_paid_again(
    demo, demo_tree, chat, hostile_server
):
    first = labels_by(chat, demo.documents, llm_label_concurrency=2)
    totals = UsageTotals()
    run = asyncio.create_task(
        first.write(
            demo_tree, None, demo.store.items, first.budget(), JobReport.unwatched(), totals=totals
        )
    )
    await eventually(lambda: totals.calls >= 5)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    aborted = len(hostile_server.requests)
    assert 5 <= aborted < len(inner(demo_tree))

    second = await written(demo, labels_by(chat, demo.documents), renumbered(demo_tree))
    assert second.labelled == demo_tree.node_count - 1
    questions = Counter(body["messages"][-1]["content"] for body in hostile_server.requests)
    assert len(questions) == len(inner(demo_tree))
    twice = [count for count in questions.values() if count > 1]
    assert len(twice) <= 2  # under way when the run was cut off: nobody heard the reply
    assert second.totals.calls <= len(inner(demo_tree)) - aborted + 2

    hostile_server.requests.clear()
    third = await written(demo, labels_by(chat, demo.documents), demo_tree)
    assert hostile_server.requests == []
    assert (third.totals.calls, third.totals.cost_usd) == (0, 0.0)
    assert third.labelled == second.labelled
    said = {edit.node + 500: (edit.label, edit.signpost) for edit in third.edits}
    assert said == {edit.node: (edit.label, edit.signpost) for edit in second.edits}


async def test_other_content_another_language_or_model_is_another_question(demo, demo_tree):
    calls = []

    def script(turn: Turn) -> Reply:
        calls.append(turn)
        asked = turn.messages[-1].content
        return Reply(signs_json(asked[asked.index("Groups:") :]))

    leaf = next(node for node in demo_tree.leaves() if not node.key)
    chat = ScriptedChat(script)
    labels = labels_by(chat, demo.documents)
    for _ in range(2):
        await written(demo, labels, demo_tree, [leaf.id])
    assert len(calls) == 1
    gone = demo_tree.at_version(1).apply([Relabel(leaf.id, "Else", leaf.signpost)])
    await written(demo, labels, gone, [leaf.id])
    assert len(calls) == 2
    german = LabelWriter(labels._models, Settings(), "de")
    await written(demo, german, demo_tree, [leaf.id])
    assert len(calls) == 3
    await written(demo, labels_by(ScriptedChat(script, "b"), demo.documents), demo_tree, [leaf.id])
    assert len(calls) == 4
    noted = LabelWriter(labels._models, Settings(), guidance=partial(_said, "A shop of films."))
    await written(demo, noted, demo_tree, [leaf.id])
    first, last = (calls[at].messages[-1].content for at in (0, -1))
    assert last == f"{owner_note('A shop of films.')}\n\n{first}"


async def _said(words: str) -> str:
    return words


# -- money


async def test_a_budget_ends_the_work_in_good_order(demo, demo_tree, chat, hostile_server):
    labels = labels_by(chat, demo.documents, price=PRICE)
    outcome = await written(demo, labels, demo_tree, max_cost_usd=0.03)
    assert 0.01 < outcome.totals.cost_usd <= 0.03
    assert set(outcome.kept.values()) == {"budget"}
    assert outcome.labelled + len(outcome.kept) == demo_tree.node_count - 1
    depth = {node.id: len(demo_tree.path(node.id)) for node in demo_tree.walk()}
    assert min(depth[edit.node] for edit in outcome.edits) == 1
    assert (
        max(depth[e.node] for e in outcome.edits) <= min(depth[node] for node in outcome.kept) + 1
    )
    assert_told_apart(demo_tree.at_version(1).apply(outcome.edits))
    result = outcome.result()
    assert result["kept"] == {"budget": len(outcome.kept)}
    assert result["cost_usd"] == pytest.approx(outcome.totals.cost_usd, abs=1e-6)

    rest = await written(demo, labels_by(chat, demo.documents, price=PRICE), demo_tree)
    assert rest.labelled == demo_tree.node_count - 1
    assert len(hostile_server.requests) == len(inner(demo_tree))
    nothing = await written(demo, labels, demo_tree, max_cost_usd=0)
    assert nothing.labelled == 0


async def test_an_estimate_asks_nobody_and_comes_near(demo, demo_tree, chat, hostile_server):
    labels = labels_by(chat, demo.documents, price=PRICE)
    estimate = await labels.estimate(demo_tree, None, demo.store.items)
    assert hostile_server.requests == []
    outcome = await written(demo, labels, demo_tree)
    assert (estimate.nodes, estimate.calls) == (outcome.labelled, outcome.totals.calls)
    sent = sum(
        estimated_tokens(*(message["content"] for message in body["messages"]))
        for body in hostile_server.requests
    )
    assert estimate.input_tokens == sent
    assert estimate.output_tokens > 0
    dollars = (2.0 * estimate.input_tokens + 8.0 * estimate.output_tokens) / 1e6
    assert estimate.cost_usd == pytest.approx(dollars)
    unpriced = labels_by(chat, demo.documents)
    assert (await unpriced.estimate(demo_tree, None, demo.store.items)).cost_usd is None


# -- the service


async def test_the_service_asks_a_model_of_its_own_for_labels_and_keeps_its_replies(
    demo, demo_tree, hostile_server, embedded_url, open_room
):
    hostile_server.content = signs_json
    async with open_room(embedded_url) as room:
        settings = Settings(
            redis_url=embedded_url,
            key_prefix=room.prefix,
            llm_base_url=hostile_server.base_url,
            llm_model="reader",
            llm_label_model="writer",
            llm_reply_mode="json_object",
            llm_prices={"writer": {"input": 1, "output": 2}},
        )
        top = demo_tree.root.children
        for _ in range(2):
            async with services(settings) as parts:
                labels = LabelWriter(parts.models, settings)
                assert labels.budget().cost_left_usd == settings.llm_label_cost_usd
                assert labels.budget(0.5).cost_left_usd == 0.5
                outcome = await written(demo, labels, demo_tree, top)
                assert outcome.labelled == len(top)
        assert [body["model"] for body in hostile_server.requests] == ["writer"]
        off = settings.model_copy(update={"llm_labels": False})
        async with services(off) as parts:
            assert not LabelWriter(parts.models, off).configured
