"""`Draft`: a batch of edits on one version of a tree, until it is the next one."""

import math

import msgspec
import numpy as np

from tree.edits import DropItem, Edit, NodeSpec, PutItem, Relabel, Reshape
from tree.errors import InvalidEdit
from tree.node import ROOT, Nodes, TreeSettings
from tree.rows import Columns, IntArray, Rows
from tree.settlement import Settlement
from tree.vectors import DIMENSIONS


class Draft:
    """The nodes that a batch of edits touches.

    Between two edits they need not make a tree. New rows are appended to `rows`, whose newest
    version the draft starts from: they must be published with it, or cut off again.
    """

    def __init__(self, nodes: Nodes, rows: Rows, settings: TreeSettings, next_node: int) -> None:
        self._nodes = nodes
        self._rows = rows
        self._settings = settings
        self._specs: dict[int, NodeSpec | None] = {}  # None: dropped
        self._members: dict[int, dict[str, int]] = {}  # rows by item id, of the touched leaves
        self._place: dict[str, tuple[int, int] | None] = {}  # leaf and row of the touched items
        self._count = nodes[ROOT].count
        self.gone: set[int] = set()  # rows that the next version no longer holds
        self.next_node = next_node

    def take(self, edit: Edit) -> None:
        """The next edit of the batch. Raises InvalidEdit, after which the draft is of no use."""
        match edit:
            case PutItem():
                self._put(edit)
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
        nodes = Settlement(
            self._nodes, self._specs, self._member_rows, self._rows, self._settings
        ).nodes()
        if nodes[ROOT].count != self._count:
            raise InvalidEdit(f"the root reaches {nodes[ROOT].count} of {self._count} items")
        return nodes

    def _put(self, edit: PutItem) -> None:
        if self._spec(edit.leaf).children:
            raise InvalidEdit(f"node {edit.leaf} is not a leaf")
        if len(edit.vector) != DIMENSIONS:
            raise InvalidEdit(f"the vector of {edit.id!r} has {len(edit.vector)} bytes")
        self._leave(edit.id)
        columns = Columns(
            [edit.id],
            np.frombuffer(edit.vector, np.int8)[None],
            np.array([edit.popularity], np.float32),
            np.array([math.inf if edit.expires_at is None else edit.expires_at]),
            np.array([edit.hidden]),
            [edit.domain],
        )
        row = int(self._rows.append(columns, edit.leaf)[0])
        self._members_of(edit.leaf)[edit.id] = row
        self._place[edit.id] = (edit.leaf, row)
        self._count += 1

    def _leave(self, item_id: str) -> None:
        """The item goes from where it is, if it is anywhere."""
        place = self._whereabouts(item_id)
        if place is not None:
            leaf, row = place
            del self._members_of(leaf)[item_id]
            self.gone.add(row)
            self._place[item_id] = None
            self._count -= 1

    def _reshape(self, edit: Reshape) -> None:
        claimed = [self._claimed(spec) for spec in edit.put]
        for spec, members in zip(edit.put, claimed, strict=True):
            self._put_node(spec, members)
        for node_id in edit.drop:
            self._drop_node(node_id)

    def _claimed(self, spec: NodeSpec) -> dict[str, int]:
        """The items of `spec`, by now in no other leaf, with the rows where they stand for it."""
        if spec.children and spec.items:
            raise InvalidEdit(f"node {spec.id} would have children and items")
        members: dict[str, int] = {}
        for item_id in spec.items:
            place = self._whereabouts(item_id)
            if place is None:
                raise InvalidEdit(f"node {spec.id} claims {item_id!r}, which is not there")
            leaf, row = place
            if self._members_of(leaf).pop(item_id, None) is None:
                raise InvalidEdit(f"{item_id!r} is claimed twice")
            if leaf != spec.id:
                self.gone.add(row)
                row = int(self._rows.move(np.array([row], np.int32), spec.id)[0])
            self._place[item_id] = (spec.id, row)
            members[item_id] = row
        return members

    def _put_node(self, spec: NodeSpec, members: dict[str, int]) -> None:
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

    def _members_of(self, node_id: int) -> dict[str, int]:
        members = self._members.get(node_id)
        if members is None:
            self._spec(node_id)
            rows = self._nodes[node_id].rows.tolist()
            members = self._members[node_id] = {self._rows.id(row): row for row in rows}
        return members

    def _member_rows(self, leaf: int) -> IntArray:
        return np.array(list(self._members_of(leaf).values()), np.int32)

    def _whereabouts(self, item_id: str) -> tuple[int, int] | None:
        if item_id in self._place:
            return self._place[item_id]
        row = self._rows.find(item_id, self._rows.head, self._rows.size)
        return None if row is None else (int(self._rows.leaf[row]), row)
