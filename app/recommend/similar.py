"""The items most similar to an item."""

from app.ranking import Direction, Need, words_of
from app.recommend.answer import recommended
from app.recommend.candidates import CandidatePool, allowed_rows
from app.recommend.resolve import path_name
from app.recommend.response import SimilarItems
from tree.snapshot import SemanticTree


async def similar_items(
    pool: CandidatePool, tree: SemanticTree, item_id: str, limit: int, catalog: str
) -> SimilarItems | None:
    """The most similar items, best first; None if the item may not be shown or does not exist."""
    row = tree.row(item_id)
    if row is None or not await pool.shows(tree, row):
        return None
    label = path_name(tree.path(int(tree.rows.leaf[row])))
    need = Need(
        directions=(Direction(tree.rows.vectors[row], 1.0, 0, label),),
        words=words_of(tree, [(row, 1.0)], 1.0, ()),
    )
    found = await pool.best(tree, need, allowed_rows(tree, (row,), (), None), limit)
    chosen = await pool.live(tree, found.rows.tolist(), limit, None)
    items = [
        recommended(tree, found, at, item, rank, {"title": item.title}, None)
        for rank, (at, item) in enumerate(chosen, 1)
    ]
    return SimilarItems(catalog=catalog, tree_version=tree.version, item_id=item_id, items=items)
