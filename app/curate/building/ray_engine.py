"""A build on a Ray cluster. The only module that knows Ray, which is an optional extra."""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from functools import partial
from threading import Thread
from typing import Any, TypeVar

import app
import prompts
import tree
from app.curate.building.engine import Engine, Shared
from app.curate.threads import JOBS
from app.jobs import JobFailed
from tree.errors import TreeError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_HOST_AND_PORT = re.compile(r"\A(ray://)?(?P<host>.+):(?P<port>\d+)\Z")
_REACH_S = 5
_CONNECT_S = 60

_in_use = 0  # a process has one connection to Ray, and may have several builds
_connecting = asyncio.Lock()


@asynccontextmanager
async def ray_engine(address: str) -> AsyncIterator[Engine]:
    """An engine on the cluster at `address`: `auto`, `host:port` or `ray://host:port`.

    Our code is sent along; the libraries it stands on must be on the nodes, in the same versions.
    Raises JobFailed when Ray is not installed or no cluster answers.
    """
    global _in_use  # noqa: PLW0603 - so is Ray's connection
    try:
        import ray
    except ImportError as error:
        raise JobFailed(
            "engine_unavailable",
            "the engine ray needs an optional extra. In a checkout: pip install '.[ray]'",
        ) from error
    async with _connecting:
        if not _in_use:  # in a thread: Ray takes over SIGTERM where it is the main one
            await _connect(ray, address)
        _in_use += 1
    engine = RayEngine(ray)
    try:
        yield engine
    finally:
        engine.stop()
        async with _connecting:
            _in_use -= 1
            if not _in_use:
                await JOBS.run(ray.shutdown)


async def _connect(ray: Any, address: str) -> None:  # noqa: ANN401 - an optional import has no type
    init = partial(
        ray.init,
        address=address,
        runtime_env={"py_modules": [package.__path__[0] for package in (app, tree, prompts)]},
        log_to_driver=False,
        configure_logging=False,
    )
    try:
        if named := _HOST_AND_PORT.fullmatch(address):
            await _reach(named["host"].strip("[]"), int(named["port"]))
        async with asyncio.timeout(_CONNECT_S):
            await _aside(init)
    except (OSError, RuntimeError, ValueError) as error:  # both kinds of timeout are an OSError
        reason = str(error) or f"nothing within {_CONNECT_S} s"
        raise JobFailed(
            "engine_unavailable", f"no Ray cluster answers at {address!r}: {reason}"
        ) from error


async def _aside(call: Callable[[], object]) -> None:
    """Run it in a thread that nobody waits for at exit: Ray asks an absent cluster for ever."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            done.set_exception(error)
        else:
            done.set_result(None)

    done.set_running_or_notify_cancel()
    Thread(target=run, name="ray", daemon=True).start()
    await asyncio.wrap_future(done)


async def _reach(host: str, port: int) -> None:
    """Raises OSError at once where nobody listens: Ray would try for minutes."""
    async with asyncio.timeout(_REACH_S):
        _, writer = await asyncio.open_connection(host, port)
    writer.close()


class RayEngine:
    """See Engine. Shared values lie in Ray's object store, once per node."""

    def __init__(self, ray: Any) -> None:  # noqa: ANN401
        """Over the connection that is open."""
        self.width = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self.nodes: Counter[str] = Counter()  # tasks done, by node
        self._ray = ray
        self._call = ray.remote(_called)
        self._pending: set[Any] = set()

    async def share(self, value: _T) -> Shared[_T]:
        """See Engine."""
        return Shared(value, await JOBS.run(self._ray.put, value))

    async def run(self, task: Callable[..., _T], *args: object) -> _T:
        """See Engine. Ray repeats what was lost with a node."""
        sent = [arg.reference if isinstance(arg, Shared) else arg for arg in args]
        call = self._call.options(name=task.__name__)
        reply = await JOBS.run(call.remote, task, *sent)
        self._pending.add(reply)
        try:
            node, result = await asyncio.wrap_future(reply.future())
        except TreeError:  # what a task raises comes as an error of both kinds
            raise
        except self._ray.exceptions.RayError as error:
            raise JobFailed("engine_failed", f"Ray gave up {task.__name__}: {error}") from error
        finally:
            self._pending.discard(reply)
        self.nodes[node] += 1
        return result

    def stop(self) -> None:
        """Cancel what is still under way."""
        for reply in self._pending:
            with suppress(self._ray.exceptions.RayError):
                self._ray.cancel(reply)
        _log.info("the build ran %d tasks on %d Ray nodes", self.nodes.total(), len(self.nodes))


def _called(task: Callable[..., _T], *args: object) -> tuple[str, _T]:
    import ray

    return ray.get_runtime_context().get_node_id(), task(*args)
