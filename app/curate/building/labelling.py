"""The labels of a whole tree, made by many tasks at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import structs

from app.curate.building import tasks
from app.curate.building.columns import ItemColumns
from app.curate.building.engine import Engine, Shared
from app.curate.threads import JOBS
from app.jobs import JobReport
from tree.build import Members
from tree.edits import NodeSpec
from tree.labels import Labeller
from tree.worker import together


@dataclass(frozen=True, slots=True)
class _Extent:
    """The part of the specs, of the leaves and of the items (by leaf) that is below a node."""

    specs: slice
    leaves: slice
    items: slice

    @property
    def size(self) -> int:
        return int(self.items.stop - self.items.start)


async def labelled(
    specs: Sequence[NodeSpec],
    members: Sequence[Members],
    columns: Shared[ItemColumns],
    labeller: Shared[Labeller],
    workers: Engine,
    report: JobReport,
    task_items: int,
) -> list[NodeSpec]:
    """What `Labeller.label` returns. Labels of siblings depend only on the items below them.

    `specs` are in preorder, and their leaves in the order of `members`.
    """
    extents = await JOBS.run(_extents, specs, members)
    order = await JOBS.run(np.concatenate, members)
    known = {spec.id: spec for spec in specs}
    root = specs[0].id

    async def children(top: NodeSpec) -> None:
        inside = extents[top.id].items
        below = [specs[extents[child].specs.start] for child in top.children]
        stops = [extents[child].items.stop for child in top.children]
        names = await workers.run(
            tasks.name_children, labeller, columns, order[inside],
            np.array([inside.start, *stops]) - inside.start, [child.label for child in below],
        )  # fmt: skip
        for child, (label, signpost) in zip(below, names, strict=True):
            if not child.locked:
                known[child.id] = structs.replace(child, label=label, signpost=signpost)

    async def subtree(top: int) -> None:
        extent = extents[top]
        named = await workers.run(
            tasks.label, labeller, columns, specs[extent.specs], members[extent.leaves]
        )
        known.update({spec.id: spec for spec in named if spec.id != top or top == root})
        report.advance(extent.size)

    if extents[root].size > task_items:
        known[root] = structs.replace(specs[0], label=specs[0].label or "All items")
    jobs = []
    pending = [root]
    while pending:
        top = pending.pop()
        spec = specs[extents[top].specs.start]
        if spec.children and extents[top].size > task_items:
            jobs.append(children(spec))
            pending.extend(reversed(spec.children))
        else:
            jobs.append(subtree(top))
    await together(jobs)
    return [known[spec.id] for spec in specs]


def _extents(specs: Sequence[NodeSpec], members: Sequence[Members]) -> dict[int, _Extent]:
    extents: dict[int, _Extent] = {}
    leaf, item = len(members), sum(map(len, members))
    for at in range(len(specs) - 1, -1, -1):
        spec = specs[at]
        if spec.children:
            first, last = extents[spec.children[0]], extents[spec.children[-1]]
            extents[spec.id] = _Extent(
                slice(at, last.specs.stop),
                slice(first.leaves.start, last.leaves.stop),
                slice(first.items.start, last.items.stop),
            )
        else:
            leaf -= 1
            size = len(members[leaf])
            item -= size
            extents[spec.id] = _Extent(
                slice(at, at + 1), slice(leaf, leaf + 1), slice(item, item + size)
            )
    return extents
