"""`with_kept_lines`: items that are put again keep their lines."""

from collections.abc import Collection, Sequence

from tree.item import Item
from tree.snapshot import SemanticTree
from tree.store.protocol import ItemRecords


async def with_kept_lines(
    records: ItemRecords,
    tree: SemanticTree,
    items: Sequence[Item],
    staged: Collection[str] = (),
) -> list[Item]:
    """The same items, each with the line of its stored record where that still fits.

    The records are read of items that have a line in `tree`, and of those that are `staged`; the
    store is not asked for others.
    """
    wanted = set(staged)
    if tree.rows.have_lines:
        bare = [item.id for item in items if item.line is None]
        wanted.update(
            item_id
            for item_id, row in zip(bare, tree.rows_of(bare), strict=True)
            if row is not None and tree.rows.lines[row]
        )
    if not wanted:
        return list(items)
    before = await records.items([item.id for item in items if item.id in wanted])
    return [item.keeping_line_of(before.get(item.id)) for item in items]
