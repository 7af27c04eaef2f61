"""A script gets each key and each argument under its name."""

import pytest

from app.storage import feedback_scripts
from tree.redis.script import TOMBSTONE, Script
from tree.store import scripts

ECHO = Script(
    "return {head, one, two, first, second, empty, numbers}",
    keys=("head", "one*", "two*"),
    args=("first", "second", "empty*", "numbers*"),
)
DECLARED = {
    f"{module.__name__}.{name}": script
    for module in (scripts, feedback_scripts)
    for name, script in vars(module).items()
    if isinstance(script, Script)
}


async def test_every_value_comes_under_its_name(room):
    def key(name: str) -> str:
        return f"{room.prefix}:{{books}}:{name}"

    answer = await ECHO.on(room.client)(
        numbers=[1, 2],
        second="b",
        first=b"a",
        empty=[],
        two=[key("2"), key("3")],
        one=[key("1")],
        head=key("head"),
    )
    assert answer == [
        key("head").encode(),
        [key("1").encode()],
        [key("2").encode(), key("3").encode()],
        b"a",
        b"b",
        [],
        [b"1", b"2"],
    ]


@pytest.mark.parametrize("names", [("first",), ("first", "second", "third")])
async def test_a_name_that_is_missing_or_unknown_is_refused(room, names):
    script = Script("return first", keys=(), args=("first", "second")).on(room.client)
    with pytest.raises(TypeError, match="the script takes"):
        await script(**dict.fromkeys(names, "x"))


async def test_a_script_that_writes_does_nothing_for_a_deleted_catalogue(room):
    for name, script in DECLARED.items():
        if not script.refuses_deleted:
            continue
        values = {
            name.removesuffix("*"): [] if name.endswith("*") else f"{room.prefix}:{{books}}:{name}"
            for name in (*script.keys, *script.args)
        }
        await room.client.hset(str(values["head"]), TOMBSTONE, "1")
        with pytest.raises(Exception, match="CATALOGDELETED"):
            await script.on(room.client)(**values)
        found = [key async for key in room.client.scan_iter(match=f"{room.prefix}:*")]
        assert found == [str(values["head"]).encode()], name


@pytest.mark.parametrize("name", DECLARED)
async def test_every_declared_name_is_used(name):
    script = DECLARED[name]
    for part in (*script.keys, *script.args):
        used = part.removesuffix("*")
        assert used == "head" or used in script.body, used
