"""`Draft`: a batch of edits on one version of a tree, until it is the next one."""

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec
import numpy as np

from tree.edits import DropItem, Edit, NodeSpec, PutItem, Relabel, Reshape
from tree.errors import InvalidEdit
from tree.node import ROOT, Nodes, TreeSettings
from tree.node_builder import NodeBuilder
from tree.rows import Columns, IntArray, Rows
from tree.terms import ROW_BYTES


class Draft:
    """The nodes that a batch of edits touches.

    Between two edits they may not make a tree. New rows are appended to `rows`: they must be
    published with the next version, or truncated.
    """

    def __init__(self, nodes: Nodes, rows: Rows, settings: TreeSettings, next_node: int) -> None:
        self._nodes = nodes
        self._rows = rows
        self._settings = settings
        self._specs: dict[int, NodeSpec | None] = {}  # None: dropped
        self._members: dict[int, dict[int, None]] = {}  # rows of the touched leaves, in order
        self._place: dict[str, tuple[int, int] | None] = {}  # leaf and row of the touched items
        self._count = nodes[ROOT].count
        self._since = rows.size  # where its own rows begin
        self.gone: set[int] = set()  # rows that the next version no longer holds
        self.arrived = 0  # puts of items that were not there
        self.next_node = next_node

    def take(self, edits: Iterable[Edit]) -> None:
        """The edits of the batch. Raises InvalidEdit, after which the draft is of no use."""
        for are_puts, run in groupby(edits, lambda edit: isinstance(edit, PutItem)):
            if are_puts:
                self._put([edit for edit in run if isinstance(edit, PutItem)])
            else:
                for edit in run:
                    self._take(edit)

    def _take(self, edit: Edit) -> None:
        match edit:
            case PutItem():
                self._put([edit])
            case DropItem():
                self._leave(edit.id)
            case Relabel():
                self._specs[edit.node] = msgspec.structs.replace(
                    self._spec(edit.node),
                    label=edit.label,
                    signpost=edit.signpost,
                    locked=edit.locked,
                )
            case Reshape():
                self._reshape(edit)

    def settled(self) -> Nodes:
        """The nodes of the next version. Raises InvalidEdit when they do not make a tree."""
        nodes = NodeBuilder(
            self._nodes, self._specs, self._member_rows, self._rows, self._settings
        ).nodes()
        if nodes[ROOT].count != self._count:
            raise InvalidEdit(f"the root reaches {nodes[ROOT].count} of {self._count} items")
        return nodes

    def _put(self, edits: Sequence[PutItem]) -> None:
        """A run of puts, whose rows are appended at once."""
        self._look_up([edit.id for edit in edits])
        for row, edit in enumerate(edits, self._rows.size):
            if self._spec(edit.leaf).children:
                raise InvalidEdit(f"node {edit.leaf} is not a leaf")
            if len(edit.vector) != self._rows.dimensions:
                raise InvalidEdit(f"the vector of {edit.id!r} has {len(edit.vector)} bytes")
            if len(edit.terms) not in (0, ROW_BYTES):
                raise InvalidEdit(f"the terms of {edit.id!r} have {len(edit.terms)} bytes")
            self.arrived += not self._leave(edit.id)
            self._members_of(edit.leaf)[row] = None
            self._place[edit.id] = (edit.leaf, row)
        self._count += len(edits)
        columns = Columns(
            [edit.id for edit in edits],
            np.frombuffer(b"".join(edit.vector for edit in edits), np.int8).reshape(len(edits), -1),
            np.array([edit.popularity for edit in edits], np.float32),
            np.array([math.inf if e.expires_at is None else e.expires_at for e in edits]),
            np.array([edit.hidden for edit in edits]),
            [edit.domain for edit in edits],
            np.array([edit.line for edit in edits], np.uint8),
            np.frombuffer(
                b"".join(edit.terms or bytes(ROW_BYTES) for edit in edits), np.uint8
            ).reshape(len(edits), ROW_BYTES),
        )
        self._rows.append(columns, [edit.leaf for edit in edits])

    def _leave(self, item_id: str) -> bool:
        """Remove the item from its leaf; False if it was in none."""
        place = self._whereabouts(item_id)
        if place is None:
            return False
        leaf, row = place
        del self._members_of(leaf)[row]
        self.gone.add(row)
        self._place[item_id] = None
        self._count -= 1
        return True

    def _reshape(self, edit: Reshape) -> None:
        self._look_up([item_id for spec in edit.put for item_id in spec.items])
        claimed = [self._claimed(spec) for spec in edit.put]
        leaves = np.repeat([spec.id for spec in edit.put], [len(rows) for rows in claimed])
        rows = np.array([row for rows in claimed for row in rows], np.int32)
        moved = self._settled_in(rows, leaves.astype(np.int32))
        start = 0
        for spec, old in zip(edit.put, claimed, strict=True):
            new = moved[start : start + len(old)]
            start += len(old)
            self._place.update(
                (item_id, (spec.id, row)) for item_id, row in zip(spec.items, new, strict=True)
            )
            self._put_node(spec, dict.fromkeys(new))
        for node_id in edit.drop:
            self._drop_node(node_id)

    def _claimed(self, spec: NodeSpec) -> list[int]:
        """The rows of the items of `spec`, which are in no leaf now."""
        if spec.children and spec.items:
            raise InvalidEdit(f"node {spec.id} would have children and items")
        rows: list[int] = []
        for item_id in spec.items:
            place = self._whereabouts(item_id)
            if place is None:
                raise InvalidEdit(f"node {spec.id} claims {item_id!r}, which is not there")
            leaf, row = place
            members = self._members_of(leaf)
            if row not in members:
                raise InvalidEdit(f"{item_id!r} is claimed twice")
            del members[row]
            rows.append(row)
        return rows

    def _settled_in(self, rows: IntArray, leaves: IntArray) -> list[int]:
        """Rows with the content of `rows` in the leaves `leaves`."""
        mine = rows >= self._since  # not visible to others yet, so they may change
        self._rows.leaf[rows[mine]] = leaves[mine]
        away = self._rows.leaf[rows] != leaves
        self.gone.update(rows[away].tolist())
        rows[away] = self._rows.move(rows[away], leaves[away])
        return rows.tolist()

    def _put_node(self, spec: NodeSpec, members: dict[int, None]) -> None:
        known = spec.id in self._specs or spec.id in self._nodes
        if known and (left := self._members_of(spec.id)):
            raise InvalidEdit(f"node {spec.id} would lose {len(left)} items")
        self._specs[spec.id] = msgspec.structs.replace(spec, items=())
        self._members[spec.id] = members
        self.next_node = max(self.next_node, spec.id + 1)

    def _drop_node(self, node_id: int) -> None:
        if self._members_of(node_id):
            raise InvalidEdit(f"node {node_id} is dropped with items in it")
        if node_id == ROOT:
            raise InvalidEdit("the root cannot be dropped")
        self._specs[node_id] = None

    def _spec(self, node_id: int) -> NodeSpec:
        if node_id not in self._specs:
            node = self._nodes.get(node_id)
            if node is None:
                raise InvalidEdit(f"no node {node_id} in version {self._rows.head}")
            self._specs[node_id] = node.spec()
        spec = self._specs[node_id]
        if spec is None:
            raise InvalidEdit(f"node {node_id} was dropped")
        return spec

    def _members_of(self, node_id: int) -> dict[int, None]:
        members = self._members.get(node_id)
        if members is None:
            self._spec(node_id)
            members = self._members[node_id] = dict.fromkeys(self._nodes[node_id].rows.tolist())
        return members

    def _member_rows(self, leaf: int) -> IntArray:
        return np.array(list(self._members_of(leaf)), np.int32)

    def _look_up(self, ids: Sequence[str]) -> None:
        """Find the places of several items at once, which is cheaper than one by one."""
        new = [item_id for item_id in ids if item_id not in self._place]
        rows = self._rows.find_all(new, self._rows.head, self._since)
        leaves = self._rows.leaf
        self._place.update(
            (item_id, None if row is None else (int(leaves[row]), row))
            for item_id, row in zip(new, rows, strict=True)
        )

    def _whereabouts(self, item_id: str) -> tuple[int, int] | None:
        if item_id in self._place:
            return self._place[item_id]
        row = self._rows.find(item_id, self._rows.head, self._rows.size)
        return None if row is None else (int(self._rows.leaf[row]), row)
