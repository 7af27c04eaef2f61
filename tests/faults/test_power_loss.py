"""The append-only file cut anywhere, or with flipped bytes: what is whole is served, the rest told.

Killing a server loses nothing that reached the page cache: power loss is a copy of its file, cut.
"""

import asyncio
import random
import time
from collections import Counter

import pytest

from tests.faults.aof import Left, Life, Writing, copied, left_in, left_of_cut, newest_log, serving

STEPS = 60
SEED = 20
PART = 185  # half a minute of a core


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """A catalogue written with `fsync always`: each acknowledgement came after its fsync."""
    life = Life(tmp_path_factory.mktemp("life"))
    asyncio.run(_lived(life))
    assert life.states[-1].size <= life.log.stat().st_size
    assert life.states[-1].version > STEPS / 2
    return life


async def _lived(life: Life) -> None:
    async with serving(life.folder, "always") as client:
        writing = Writing(client, life, SEED)
        await writing.start()
        for step in range(STEPS):
            await writing.step(snapshots=step < STEPS / 3)
            assert (await client.execute_command("WAITAOF", 1, 0, 1))[0] == 1


async def test_the_whole_file_holds_the_last_state(life, tmp_path):
    left = await left_in(copied(life, tmp_path))
    assert left.findings == left.violations == ()
    assert left.holds(life.states[-1])


def draws(count: int, long: int, day: str) -> list:
    """Seeds: some in every run, many more in the long one, in parts."""
    parts = [range(start, min(start + PART, long)) for start in range(count, long, PART)]
    return [
        *range(count),
        *(
            pytest.param(seeds, marks=pytest.mark.long(day), id=f"{seeds.start}-{seeds.stop}")
            for seeds in parts
        ),
    ]


@pytest.mark.parametrize("seeds", draws(15, 200, "Wednesday"))
async def test_nothing_acknowledged_is_lost_by_a_cut_after_its_fsync(life, tmp_path, seeds):
    outcomes: Counter[str] = Counter()
    for seed in _each(seeds):
        draw = random.Random(seed)
        at = draw.randrange(len(life.states))
        bounds = [state.size for state in life.states] + [life.log.stat().st_size]
        cut = draw.randint(bounds[at], bounds[at + 1])
        left = await left_of_cut(life, tmp_path / str(seed), cut)
        assert left.findings == left.violations == (), seed
        following = life.states[at : at + 2]
        assert any(left.holds(state) for state in following), (seed, cut, left)
        outcomes["torn tail" if left.torn else "clean end"] += 1
    _report("cuts after an fsync, nothing lost", outcomes)


@pytest.mark.parametrize("seeds", draws(15, 200, "Thursday"))
async def test_a_cut_anywhere_leaves_a_state_that_once_was(life, tmp_path, seeds):
    outcomes: Counter[str] = Counter()
    for seed in _each(seeds):
        cut = random.Random(-seed - 1).randrange(life.log.stat().st_size)
        left = await left_of_cut(life, tmp_path / str(seed), cut)
        assert left.findings == left.violations == (), seed
        (state,) = [state for state in life.states if left.holds(state)][-1:] or [None]
        assert state is not None, (seed, cut, left)
        acknowledged = [state for state in life.states if state.size <= cut][-1:]
        assert not acknowledged or state.version >= acknowledged[0].version
        outcomes["torn tail" if left.torn else "clean end"] += 1
    _report("cuts anywhere", outcomes)


@pytest.mark.parametrize("seeds", draws(30, 400, "Friday"))
async def test_flipped_bytes_are_refused_or_named_and_never_served(life, tmp_path, seeds):
    outcomes: Counter[str] = Counter()
    for seed in _each(seeds):
        folder = copied(life, tmp_path / str(seed))
        draw = random.Random(seed)
        content = bytearray(newest_log(folder).read_bytes())
        for _ in range(draw.choice([1, 1, 1, 3])):
            at = draw.randrange(len(content))
            content[at] ^= draw.choice([1 << draw.randrange(8), draw.randrange(1, 256)])
        newest_log(folder).write_bytes(content)
        outcomes[_judged(life, await left_in(folder), seed)] += 1
    _report("flipped bytes", outcomes)


async def test_a_damaged_base_file_is_refused(tmp_path):
    life = Life(tmp_path / "life")
    async with serving(life.folder) as client:
        writing = Writing(client, life, SEED)
        await writing.start()
        for _ in range(10):
            await writing.step()
        await client.bgrewriteaof()
        deadline = time.monotonic() + 20
        while (await client.info("persistence"))["aof_rewrite_in_progress"]:
            assert time.monotonic() < deadline
        assert (await client.info("persistence"))["aof_last_bgrewrite_status"] == "ok"
    folder = copied(life, tmp_path / "copy")
    (base,) = (folder / "appendonlydir").glob("*.base.rdb")
    content = bytearray(base.read_bytes())
    content[len(content) // 2] ^= 4
    base.write_bytes(content)
    left = await left_in(folder)
    assert not left.started
    assert f"move {folder / 'appendonlydir'} away to start empty, then restore" in left.refusal


def _judged(life: Life, left: Left, seed: int) -> str:
    """The kind of an outcome; fails where damage is served as if it were whole."""
    if not left.started:
        assert "the embedded store does not start: move" in left.refusal, (seed, left)
        return "the server refuses to start"
    if left.refusal:
        assert left.findings, (seed, left)
        return "the catalogue is refused, with the damage by name"
    assert left.violations == (), (seed, left)
    if left.findings:
        named = " ".join(left.findings)
        assert any(
            left.ids == state.items.keys()
            and all(
                left.items.get(i) == item or repr(i) in named for i, item in state.items.items()
            )
            for state in life.states
            if state.version == left.version
        ), (seed, left)
        return "doctor names the damage"
    if left.torn:
        assert any(left.holds(state) for state in life.states), (seed, left)
        return "an earlier state, and the rest kept"
    assert left.holds(life.states[-1]), (seed, left)
    return "no harm done"


def _each(seeds: int | range) -> range:
    return range(seeds, seeds + 1) if isinstance(seeds, int) else seeds


def _report(what: str, outcomes: Counter[str]) -> None:
    if outcomes.total() > 1:
        print(f"\n{outcomes.total()} {what}: " + ", ".join(f"{n} {k}" for k, n in outcomes.items()))
