"""`SemanticTree`: one immutable version of the tree, and how the next one follows from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
from rpds import HashTrieMap

from tree.edits import DropItem, Edit, NodeSpec, PutItem, Relabel, Reshape
from tree.errors import InvalidEdit, UnknownNode
from tree.rows import Columns, IntArray, Rows
from tree.vectors import DIMENSIONS, FACETS, FloatArray, Int8Matrix, facets, inverse_norms

ROOT = 0
NO_ROWS: IntArray = np.zeros(0, np.int32)
_NO_SLATE: Int8Matrix = np.zeros((0, FACETS, DIMENSIONS), np.int8)
_NO_SCALE: FloatArray = np.zeros((0, FACETS), np.float32)
_COMPACT_ABOVE = 4_096  # dead rows; below that they are not worth a copy


class TreeSettings(msgspec.Struct, frozen=True):
    """What shapes a tree; part of every snapshot."""

    leaf_capacity: int = 20
    fan_out: int = 16
    seed: int = 0

    def depth_limit(self, items: int) -> int:
        """Levels below the root that `items` may take: ⌈log_fan_out(n / leaf_capacity)⌉ + 2."""
        levels, reach = 0, self.leaf_capacity
        while reach < items:
            levels, reach = levels + 1, reach * self.fan_out
        return levels + 2


class Space(msgspec.Struct, frozen=True):
    """The vector space of a tree: which embedder, and its frozen state (empty when unfitted)."""

    embedder: str
    fingerprint: str
    state: bytes = b""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of one version. `slate` holds its children's facets, in the order of `children`."""

    id: int
    parent: int | None
    label: str
    signpost: str = ""
    key: tuple[str, ...] = ()
    locked: bool = False
    children: tuple[int, ...] = ()
    inner: tuple[int, ...] = ()  # positions of the children that have children themselves
    rows: IntArray = field(default_factory=lambda: NO_ROWS)
    count: int = 0
    height: int = 0  # levels below it
    slate: Int8Matrix = field(default_factory=lambda: _NO_SLATE)
    slate_scale: FloatArray = field(default_factory=lambda: _NO_SCALE)

    @property
    def is_leaf(self) -> bool:
        return not self.children


class SemanticTree:
    """A version of the tree: nodes by id over shared rows.

    Two versions share all nodes that the edits between them left alone. `apply` costs
    O(touched nodes · fan-out), except when dead rows outweigh half the live ones: then the rows
    are copied once, which makes the cost amortised.
    """

    __slots__ = ("_nodes", "next_node", "rows", "settings", "size", "space", "version")

    def __init__(
        self,
        *,
        version: int,
        settings: TreeSettings,
        space: Space,
        nodes: HashTrieMap[int, Node],
        rows: Rows,
        next_node: int,
    ) -> None:
        self.version = version
        self.settings = settings
        self.space = space
        self.rows = rows
        self.size = rows.size
        self.next_node = next_node
        self._nodes = nodes

    @classmethod
    def empty(cls, space: Space, settings: TreeSettings = TreeSettings()) -> SemanticTree:  # noqa: B008
        """Version 0: a root without items."""
        nodes = HashTrieMap({ROOT: Node(ROOT, None, "All items")})
        return cls(
            version=0, settings=settings, space=space, nodes=nodes, rows=Rows(), next_node=1
        )

    @classmethod
    def assemble(
        cls,
        specs: Sequence[NodeSpec],
        columns: Columns,
        leaf_sizes: Sequence[int],
        *,
        version: int,
        settings: TreeSettings,
        space: Space,
        next_node: int,
        leaf_facets: Int8Matrix | None = None,
    ) -> SemanticTree:
        """A whole tree from its parts.

        `specs` come parents first; the leaves among them take the next `leaf_sizes[i]` rows of
        `columns` each, in order (their `items` are ignored). Raises InvalidEdit when the parts
        do not make one tree.
        """
        rows = Rows(len(columns.ids))
        leaves = [spec for spec in specs if not spec.children]
        if len(leaves) != len(leaf_sizes) or sum(leaf_sizes) != len(columns.ids):
            raise InvalidEdit("leaf sizes do not add up to the rows")
        rows.append(columns, np.repeat([leaf.id for leaf in leaves], leaf_sizes))
        rows.publish(version, 0, ())
        ends = np.cumsum(leaf_sizes)
        spans = {
            leaf.id: (int(end) - size, int(end))
            for leaf, size, end in zip(leaves, leaf_sizes, ends, strict=True)
        }
        parents = {child: spec.id for spec in specs for child in spec.children}
        known: dict[int, Int8Matrix] = {}
        if leaf_facets is not None:
            known = {leaf.id: leaf_facets[i] for i, leaf in enumerate(leaves)}
        nodes: dict[int, Node] = {}
        for spec in reversed(specs):
            try:
                node = _grown(spec, parents.get(spec.id), spans.get(spec.id), nodes, known, rows)
            except KeyError as error:
                raise InvalidEdit(f"node {spec.id} has a child that is not there") from error
            nodes[spec.id] = node
            if spec.children:
                known[spec.id] = facets(node.slate.reshape(-1, DIMENSIONS))
                for child in spec.children:
                    known.pop(child, None)
        if ROOT not in nodes or nodes[ROOT].count != len(columns.ids):
            raise InvalidEdit("the root does not hold every item")
        return cls(
            version=version,
            settings=settings,
            space=space,
            nodes=HashTrieMap(nodes),
            rows=rows,
            next_node=next_node,
        )

    # -- reading

    def __len__(self) -> int:
        """Live items, hidden and expired ones included."""
        return self.root.count

    def __contains__(self, item_id: str) -> bool:
        return self.row(item_id) is not None

    @property
    def root(self) -> Node:
        return self._nodes[ROOT]

    @property
    def node_count(self) -> int:
        return len(self._nodes)

    def node(self, node_id: int) -> Node:
        """Raises UnknownNode."""
        try:
            return self._nodes[node_id]
        except KeyError:
            raise UnknownNode(f"no node {node_id} in version {self.version}") from None

    def has_node(self, node_id: int) -> bool:
        return node_id in self._nodes

    def children(self, node: Node) -> list[Node]:
        return [self._nodes[child] for child in node.children]

    def row(self, item_id: str) -> int | None:
        """The row of a live item; None when the tree does not hold it."""
        return self.rows.find(item_id, self.version, self.size)

    def path(self, node_id: int) -> list[Node]:
        """The nodes from below the root down to `node_id` (the root's own path is empty)."""
        steps: list[Node] = []
        node = self.node(node_id)
        while node.parent is not None:
            steps.append(node)
            node = self._nodes[node.parent]
        return steps[::-1]

    def leaf_of(self, item_id: str) -> Node | None:
        row = self.row(item_id)
        return None if row is None else self._nodes[int(self.rows.leaf[row])]

    def siblings(self, node_id: int) -> list[Node]:
        """The other children of a node's parent."""
        parent = self.node(node_id).parent
        others = () if parent is None else self._nodes[parent].children
        return [self._nodes[other] for other in others if other != node_id]

    def walk(self, top: int = ROOT) -> Iterator[Node]:
        """`top` and everything below it, parents first, children in order."""
        pending = [self.node(top)]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(self._nodes[child] for child in reversed(node.children))

    def leaves(self, top: int = ROOT) -> Iterator[Node]:
        return (node for node in self.walk(top) if node.is_leaf)

    def item_ids(self, top: int = ROOT) -> Iterator[str]:
        """Ids of the live items below `top`, leaf by leaf."""
        for leaf in self.leaves(top):
            yield from map(self.rows.id, leaf.rows.tolist())

    def facets_of(self, node: Node) -> Int8Matrix:
        """int8[FACETS, dimensions]: the directions that stand for a node."""
        if node.parent is None:
            members = node.slate.reshape(-1, DIMENSIONS) if node.children else self._vectors(node)
            return _facets_or_zero(members)
        parent = self._nodes[node.parent]
        return parent.slate[parent.children.index(node.id)]  # type: ignore[no-any-return]

    def allowed(self, now: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """bool[size]: rows that are live in this version, not hidden and not expired."""
        rows, size = self.rows, self.size
        mask = rows.died[:size] > self.version
        mask &= ~rows.hidden[:size]
        mask &= rows.expires_at[:size] > now
        return mask

    def spec(self, node: Node, *, with_items: bool = True) -> NodeSpec:
        """The node as an edit would put it."""
        items = tuple(map(self.rows.id, node.rows.tolist())) if with_items else ()
        return NodeSpec(
            node.id, node.label, node.signpost, node.key, node.children, items, node.locked
        )

    # -- the next version

    def apply(self, edits: Iterable[Edit]) -> SemanticTree:
        """The version after this one. All edits or none: raises InvalidEdit and changes nothing."""
        return self.prepare(edits).publish()

    def prepare(self, edits: Iterable[Edit]) -> Pending:
        """The next version, checked but visible to nobody until it is published or abandoned.

        One pending version at a time for all trees that share rows. Raises InvalidEdit.
        """
        base = self
        if self.rows.head != self.version or _worth_compacting(self.rows):
            base = self._compacted()
        draft = _Draft(base)
        try:
            for edit in edits:
                draft.take(edit)
            nodes = draft.settled()
        except BaseException:
            base.rows.truncate(base.size)
            raise
        return Pending(base, nodes, draft.gone, draft.next_node)

    def at_version(self, version: int) -> SemanticTree:
        """The same content under another version number, on rows of its own."""
        copy = self._compacted()
        copy.version = copy.rows.head = version
        return copy

    def parts(self) -> tuple[list[NodeSpec], Columns, list[int], Int8Matrix]:
        """What `assemble` takes: specs parents first, columns, leaf sizes, leaf facets."""
        specs = [self.spec(node, with_items=False) for node in self.walk()]
        leaves = list(self.leaves())
        order = np.concatenate([leaf.rows for leaf in leaves])
        compass = np.stack([self.facets_of(leaf) for leaf in leaves])
        return specs, self.rows.columns(order), [len(leaf.rows) for leaf in leaves], compass

    def _compacted(self) -> SemanticTree:
        specs, columns, sizes, compass = self.parts()
        return SemanticTree.assemble(
            specs,
            columns,
            sizes,
            version=self.version,
            settings=self.settings,
            space=self.space,
            next_node=self.next_node,
            leaf_facets=compass,
        )

    def _vectors(self, leaf: Node) -> Int8Matrix:
        return self.rows.vectors[leaf.rows]


def _worth_compacting(rows: Rows) -> bool:
    return rows.dead > max(_COMPACT_ABOVE, (rows.size - rows.dead) // 2)


def _facets_or_zero(members: Int8Matrix) -> Int8Matrix:
    return facets(members) if len(members) else np.zeros((FACETS, DIMENSIONS), np.int8)


def _grown(
    spec: NodeSpec,
    parent: int | None,
    span: tuple[int, int] | None,
    nodes: dict[int, Node],
    known: dict[int, Int8Matrix],
    rows: Rows,
) -> Node:
    """A node of a tree under assembly, whose children stand in `nodes` already."""
    if span is not None:
        numbers = np.arange(*span, dtype=np.int32)
        if spec.id not in known:
            known[spec.id] = _facets_or_zero(rows.vectors[span[0] : span[1]])
        return Node(
            spec.id, parent, spec.label, spec.signpost, spec.key, spec.locked,
            rows=numbers, count=len(numbers),
        )  # fmt: skip
    slate = np.stack([known[child] for child in spec.children])
    return Node(
        spec.id, parent, spec.label, spec.signpost, spec.key, spec.locked,
        children=spec.children,
        inner=tuple(at for at, child in enumerate(spec.children) if nodes[child].children),
        count=sum(nodes[child].count for child in spec.children),
        height=1 + max(nodes[child].height for child in spec.children),
        slate=slate,
        slate_scale=inverse_norms(slate),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pending:
    """A version that waits for its place in the log."""

    base: SemanticTree
    nodes: HashTrieMap[int, Node]
    gone: set[int]
    next_node: int

    def publish(self) -> SemanticTree:
        """The new version, from now on visible."""
        base = self.base
        base.rows.publish(base.version + 1, base.size, self.gone)
        return SemanticTree(
            version=base.version + 1,
            settings=base.settings,
            space=base.space,
            nodes=self.nodes,
            rows=base.rows,
            next_node=self.next_node,
        )

    def abandon(self) -> None:
        """Forget it: somebody else committed first."""
        self.base.rows.truncate(self.base.size)


class _Draft:
    """The nodes that a batch of edits touches, until they are valid again."""

    def __init__(self, base: SemanticTree) -> None:
        self._base = base
        self._specs: dict[int, NodeSpec | None] = {}  # None: dropped
        self._members: dict[int, dict[str, int]] = {}  # rows by item id, of the touched leaves
        self._place: dict[str, tuple[int, int] | None] = {}  # leaf and row of the touched items
        self._count = len(base)
        self.gone: set[int] = set()
        self.next_node = base.next_node

    def take(self, edit: Edit) -> None:
        match edit:
            case PutItem():
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
                row = int(self._base.rows.append(columns, edit.leaf)[0])
                self._members_of(edit.leaf)[edit.id] = row
                self._place[edit.id] = (edit.leaf, row)
                self._count += 1
            case DropItem():
                self._leave(edit.id)
            case Relabel():
                spec = self._spec(edit.node)
                self._specs[edit.node] = msgspec.structs.replace(
                    spec, label=edit.label, signpost=edit.signpost, locked=edit.locked
                )
            case Reshape():
                self._reshape(edit)

    def _reshape(self, edit: Reshape) -> None:
        rows = self._base.rows
        for spec in edit.put:
            if spec.children and spec.items:
                raise InvalidEdit(f"node {spec.id} would have children and items")
            for item_id in spec.items:
                place = self._whereabouts(item_id)
                if place is None:
                    raise InvalidEdit(f"node {spec.id} claims {item_id!r}, which is not there")
                leaf, row = place
                del self._members_of(leaf)[item_id]
                if leaf != spec.id:
                    self._retire(row)
                    row = int(rows.move(np.array([row], np.int32), spec.id)[0])
                self._place[item_id] = (spec.id, row)
        for spec in edit.put:
            self.next_node = max(self.next_node, spec.id + 1)
            if (spec.id in self._specs or spec.id in self._base._nodes) and (
                left := self._members_of(spec.id)
            ):
                raise InvalidEdit(f"node {spec.id} would lose {len(left)} items")
            self._specs[spec.id] = msgspec.structs.replace(spec, items=())
            self._members[spec.id] = {item: self._place[item][1] for item in spec.items}  # type: ignore[index]
        for node_id in edit.drop:
            if self._members_of(node_id):
                raise InvalidEdit(f"node {node_id} is dropped with items in it")
            if node_id == ROOT:
                raise InvalidEdit("the root cannot be dropped")
            self._specs[node_id] = None

    def _spec(self, node_id: int) -> NodeSpec:
        if node_id not in self._specs:
            try:
                node = self._base.node(node_id)
            except UnknownNode as error:
                raise InvalidEdit(str(error)) from error
            self._specs[node_id] = self._base.spec(node, with_items=False)
        spec = self._specs[node_id]
        if spec is None:
            raise InvalidEdit(f"node {node_id} was dropped")
        return spec

    def _members_of(self, node_id: int) -> dict[str, int]:
        members = self._members.get(node_id)
        if members is None:
            self._spec(node_id)
            numbers = self._base.node(node_id).rows.tolist()
            members = self._members[node_id] = {self._base.rows.id(row): row for row in numbers}
        return members

    def _whereabouts(self, item_id: str) -> tuple[int, int] | None:
        if item_id in self._place:
            return self._place[item_id]
        row = self._base.row(item_id)
        return None if row is None else (int(self._base.rows.leaf[row]), row)

    def _retire(self, row: int) -> None:
        self.gone.add(row)

    def _leave(self, item_id: str) -> None:
        place = self._whereabouts(item_id)
        if place is not None:
            leaf, row = place
            del self._members_of(leaf)[item_id]
            self._retire(row)
            self._place[item_id] = None
            self._count -= 1

    # -- settling: the touched nodes anew, leaves first, up to the root

    def settled(self) -> HashTrieMap[int, Node]:
        """The nodes of the next version. Raises InvalidEdit when they do not make a tree."""
        base = self._base
        nodes = base._nodes
        alive = {node_id: spec for node_id, spec in self._specs.items() if spec is not None}
        parents = self._adopted(alive)
        ready: dict[int, Node] = {}
        compass: dict[int, Int8Matrix] = {}

        def parent_of(node_id: int) -> int | None:
            if node_id in parents:
                return parents[node_id]
            return None if node_id == ROOT or node_id not in nodes else nodes[node_id].parent

        touched = dict(alive)
        for node_id in list(alive):
            above = parent_of(node_id)
            while above is not None and above not in touched:
                touched[above] = base.spec(base.node(above), with_items=False)
                above = parent_of(above)

        def visit(node_id: int) -> Node:
            if node_id in ready:
                return ready[node_id]
            spec = touched[node_id]
            if spec.children:
                node = self._inner(spec, parent_of(node_id), visit, touched, compass)
            else:
                node = self._leaf(spec, parent_of(node_id))
                compass[node_id] = _facets_or_zero(base.rows.vectors[node.rows])
            ready[node_id] = node
            return node

        visit(ROOT) if ROOT in touched else None
        if len(ready) != len(touched):
            lost = sorted(touched.keys() - ready.keys())
            raise InvalidEdit(f"nodes {lost[:5]} hang from nothing")
        if ROOT in ready and ready[ROOT].count != self._count:
            raise InvalidEdit(f"the root reaches {ready[ROOT].count} of {self._count} items")
        for node_id, spec in self._specs.items():
            if spec is None and node_id in nodes:
                nodes = nodes.remove(node_id)
        for node in ready.values():
            nodes = nodes.insert(node.id, node)
        for child, parent in parents.items():
            if child not in ready:
                nodes = nodes.insert(child, replace(nodes[child], parent=parent))
        return nodes

    def _adopted(self, alive: dict[int, NodeSpec]) -> dict[int, int]:
        """The parent of every child of the touched nodes. Raises InvalidEdit where it has two."""
        parents = {child: spec.id for spec in alive.values() for child in spec.children}
        if ROOT in parents or len(parents) != sum(len(spec.children) for spec in alive.values()):
            raise InvalidEdit("a node has two parents, or is the root and has one")
        for child, parent in parents.items():
            known = self._base._nodes.get(child)
            before = known.parent if known else None
            if before not in (None, parent) and before not in self._specs:
                raise InvalidEdit(f"node {child} would hang from {before} and {parent}")
        return parents

    def _leaf(self, spec: NodeSpec, parent: int | None) -> Node:
        numbers = np.array(list(self._members_of(spec.id).values()), np.int32)
        if not len(numbers) and spec.id != ROOT:
            raise InvalidEdit(f"leaf {spec.id} would be empty")
        if len(numbers) > self._base.settings.leaf_capacity:
            raise InvalidEdit(f"leaf {spec.id} would hold {len(numbers)} items")
        return Node(
            spec.id, parent, spec.label, spec.signpost, spec.key, spec.locked,
            rows=numbers, count=len(numbers),
        )  # fmt: skip

    def _inner(self, spec, parent, visit, touched, compass) -> Node:  # type: ignore[no-untyped-def]
        base = self._base
        if not 2 <= len(spec.children) <= base.settings.fan_out:
            raise InvalidEdit(f"node {spec.id} would have {len(spec.children)} children")
        children, slate = [], []
        for child in spec.children:
            if child in touched:
                children.append(visit(child))
                slate.append(compass[child])
            else:
                node = base._nodes.get(child)
                if node is None or self._specs.get(child, spec) is None:
                    raise InvalidEdit(f"node {spec.id} has a child {child} that is not there")
                children.append(node)
                slate.append(base.facets_of(node))
        packed = np.stack(slate)
        compass[spec.id] = facets(packed.reshape(-1, DIMENSIONS))
        return Node(
            spec.id, parent, spec.label, spec.signpost, spec.key, spec.locked,
            children=spec.children,
            inner=tuple(at for at, child in enumerate(children) if child.children),
            count=sum(child.count for child in children),
            height=1 + max(child.height for child in children),
            slate=packed,
            slate_scale=inverse_norms(packed),
        )  # fmt: skip
