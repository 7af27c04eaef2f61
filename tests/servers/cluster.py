"""A Redis Cluster of three nodes on loopback: nodes can be killed, slots can move."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from tests.servers.tied import tied
from tree.redis.embedded_server import valkey_binary

NODES = 3
_HOST = "127.0.0.1"
_PATIENCE_S = 20
_POLL_S = 0.02
_KEYS_AT_ONCE = 100
_MOVE_MS = 5_000


class Node:
    """One server of the cluster; it keeps its port and its folder when it is started again."""

    def __init__(self, folder: Path, port: int, bus_port: int, dead_ms: int) -> None:
        self.port = port
        self.dead_ms = dead_ms  # silence after which the others take it for dead
        self.bus_port = bus_port
        self.client = redis.Redis(host=_HOST, port=port, socket_timeout=_PATIENCE_S)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def id(self) -> str:
        return self.client.execute_command("CLUSTER MYID").decode()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        options = {
            "port": str(self.port),
            "bind": _HOST,
            "dir": str(self._folder),
            "logfile": str(self._folder / "valkey.log"),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",  # else a crash may lose what waits for a slow disk
            "cluster-enabled": "yes",
            "cluster-port": str(self.bus_port),
            "cluster-node-timeout": str(self.dead_ms),
            "cluster-require-full-coverage": "no",
            "repl-diskless-sync-delay": "0",  # a new replica waits for no others
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen(tied([str(valkey_binary()), *arguments]))

    def kill(self) -> None:
        """As a crash does: nothing is said to anybody."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        self.client.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=_PATIENCE_S)

    def covers_all(self) -> bool:
        """Whether this node knows a living owner of every slot."""
        try:
            state = self.client.execute_command("CLUSTER INFO")
        except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
            return False
        return state["cluster_state"] == "ok" and state["cluster_slots_ok"] == str(
            REDIS_CLUSTER_HASH_SLOTS
        )


class LoopbackCluster:
    """Three primaries with a third of the slots each."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.url = "redis+cluster://" + ",".join(f"{_HOST}:{node.port}" for node in nodes)

    def form(self) -> None:
        for node in self.nodes:
            node.start()
        _wait(lambda: all(map(_answers, self.nodes)))
        first, *others = self.nodes
        for number, node in enumerate(self.nodes):
            share = REDIS_CLUSTER_HASH_SLOTS / NODES
            begin, end = round(number * share), round((number + 1) * share) - 1
            node.client.execute_command("CLUSTER ADDSLOTSRANGE", begin, end)
            node.client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node in others:
            first.client.execute_command("CLUSTER MEET", _HOST, node.port, node.bus_port)
        self.wait()

    def wait(self) -> None:
        """Until every node sees every slot served."""
        _wait(lambda: all(node.covers_all() for node in self.nodes))

    def owner(self, key: str) -> Node:
        """The node that serves the slot of `key`."""
        slot = key_slot(key.encode())
        ranges = self.nodes[0].client.execute_command("CLUSTER SLOTS")
        port = next(primary[1] for first, last, primary, *_ in ranges if first <= slot <= last)
        return next(node for node in self.nodes if node.port == port)

    @contextmanager
    def without(self, node: Node) -> Iterator[None]:
        """The cluster while `node` is killed; afterwards it is back."""
        node.kill()
        try:
            yield
        finally:
            node.start()
            self.wait()

    @contextmanager
    def moving(self, key: str, target: Node) -> Iterator[None]:
        """While the slot of `key` is on its way to `target`; its keys and it arrive at the end."""
        slot, source = key_slot(key.encode()), self.owner(key)
        target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source.id)
        source.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", target.id)
        yield
        address = _HOST, target.port, "", 0, _MOVE_MS
        ask = source.client.execute_command
        while keys := ask("CLUSTER GETKEYSINSLOT", slot, _KEYS_AT_ONCE):
            ask("MIGRATE", *address, "KEYS", *keys)
        for node in (target, source, *self.nodes):
            node.client.execute_command("CLUSTER SETSLOT", slot, "NODE", target.id)

    def add_replica(self, primary: Node, folder: Path) -> Node:
        """A fourth node that has all of `primary` and takes its place when that dies."""
        (ports,) = _free_ports(1)
        replica = _node(folder, ports, primary.dead_ms)
        self.nodes.append(replica)
        replica.start()
        _wait(lambda: _answers(replica))
        replica.client.execute_command("CLUSTER MEET", _HOST, primary.port, primary.bus_port)
        _wait(lambda: primary.id in str(replica.client.execute_command("CLUSTER NODES")))
        replica.client.execute_command("CLUSTER REPLICATE", primary.id)
        _wait(lambda: replica.client.info("replication").get("master_link_status") == "up")
        return replica

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


def start(folder: Path, *, dead_ms: int = 2_000) -> LoopbackCluster:
    """A cluster whose nodes keep what they are told in `folder`.

    A node that is silent for `dead_ms` is dead for the others.
    """
    nodes = [_node(folder, port, dead_ms) for port in _free_ports(NODES)]
    cluster = LoopbackCluster(nodes)
    try:
        cluster.form()
    except BaseException:
        cluster.stop()
        raise
    return cluster


def _free_ports(number: int) -> list[tuple[int, int]]:
    """Pairs for clients and for the other nodes; all are held until all are found."""
    with ExitStack() as held:
        free = [held.enter_context(socket.create_server((_HOST, 0))) for _ in range(2 * number)]
        ports = [one.getsockname()[1] for one in free]
    return list(zip(ports[:number], ports[number:], strict=True))


def _node(folder: Path, ports: tuple[int, int], dead_ms: int) -> Node:
    own = folder / str(ports[0])
    own.mkdir()
    return Node(own, *ports, dead_ms)


def _answers(node: Node) -> bool:
    try:
        return bool(node.client.ping())
    except redis.ConnectionError:
        return False


def _wait(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not ready():
        assert time.monotonic() < deadline, "the nodes do not form a cluster"
        time.sleep(_POLL_S)
