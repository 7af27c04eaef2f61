"""Commands of many tasks that are sent as one message."""

import asyncio

from redis.exceptions import ResponseError

from tree.redis.connection import connect
from tree.redis.joined import joined_commands
from tree.redis.script import Script

_ECHO = Script("return text", keys=("key",), args=("text",))


async def connections(client) -> int:
    """Connections that were ever made to the server."""
    return int((await client.info("stats"))["total_connections_received"])


async def test_tasks_get_their_own_replies_over_one_connection(embedded_url, room):
    async with connect(embedded_url) as client, connect(embedded_url) as other:
        names = [f"{room.prefix}:joined:{number}" for number in range(30)]
        await other.mset({name: name for name in names})
        echo = _ECHO.on(client)
        with joined_commands():
            found = await asyncio.gather(*map(client.get, names))
            echoed = await asyncio.gather(*(echo(key=name, text=name) for name in names))
            both = await asyncio.gather(*(client.mget(names[:2]) for _ in range(3)))
        assert found == echoed == [name.encode() for name in names]
        assert both == [[name.encode() for name in names[:2]]] * 3
        before = await connections(other)
        with joined_commands():
            assert len(await asyncio.gather(*map(client.get, names))) == len(names)
        assert await connections(other) == before
        await other.delete(*names)


async def test_an_error_is_of_the_command_that_it_is_for(embedded_url, room):
    async with connect(embedded_url) as client:
        name, listed = f"{room.prefix}:joined:text", f"{room.prefix}:joined:list"
        await client.set(name, "here")
        await client.rpush(listed, "one")
        with joined_commands():
            first, wrong, last = await asyncio.gather(
                client.get(name), client.get(listed), client.get(name), return_exceptions=True
            )
        assert (first, last) == (b"here", b"here")
        assert isinstance(wrong, ResponseError)
        await client.delete(name, listed)


async def test_a_task_that_is_cancelled_takes_no_other_with_it(embedded_url, room):
    async with connect(embedded_url) as client:
        name = f"{room.prefix}:joined:text"
        await client.set(name, "here")
        with joined_commands():
            tasks = [asyncio.ensure_future(client.get(name)) for _ in range(3)]
            await asyncio.sleep(0)
            tasks[1].cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [found[0], found[2]] == [b"here", b"here"]
        assert isinstance(found[1], asyncio.CancelledError)
        await client.delete(name)


async def test_commands_of_a_lost_connection_are_sent_again(embedded_url, room):
    async with connect(embedded_url, connections=1) as client, connect(embedded_url) as other:
        name = f"{room.prefix}:joined:text"
        await client.set(name, "here")
        number = await client.client_id()
        assert await other.client_kill_filter(_id=str(number)) == 1
        with joined_commands():
            assert await asyncio.gather(*(client.get(name) for _ in range(5))) == [b"here"] * 5
        await client.delete(name)
