"""Sentences about the shape of a tree, and about the result of a rebuild."""

from collections.abc import Iterator, Mapping

import msgspec


class _Shape(msgspec.Struct):
    """See tree.inspect.Statistics."""

    tree_version: int
    items: int
    leaves: int
    smallest_leaf: int
    largest_leaf: int
    gini: float
    depth: int
    depth_limit: int


class _Labels(msgspec.Struct):
    """The model usage for labels; in a dry run, the estimate."""

    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    nodes: int | None = None  # in a dry run
    labelled: int = 0
    kept: dict[str, int] = {}  # number of labels by reason


class _Embeddings(msgspec.Struct):
    """The texts that an endpoint was asked for."""

    texts_asked: int
    texts_kept: int
    tokens: int
    cost_usd: float | None
    refused_items: list[str]


class _Rebuilt(_Shape, kw_only=True):
    """The result of a rebuild."""

    dry_run: bool
    damaged: int
    damaged_items: dict[str, str]
    labels_lost: list[str]
    labels: _Labels | None = None
    embeddings: _Embeddings | None = None


def tree_facts(shape: Mapping[str, object]) -> str:
    """The version and the shape of a tree."""
    return _shape(msgspec.convert(shape, _Shape))


def rebuild_facts(result: Mapping[str, object]) -> Iterator[str]:
    """The lines that describe a rebuild and the items that it left out."""
    rebuilt = msgspec.convert(result, _Rebuilt)
    if rebuilt.dry_run:
        yield "A dry run: nothing was published."
    yield _shape(rebuilt)
    if rebuilt.embeddings is not None:
        yield from _embedded(rebuilt.embeddings)
    if rebuilt.labels is not None:
        yield _written(rebuilt.labels)
    if rebuilt.damaged:
        yield f"left out, because they are damaged: {_count(rebuilt.damaged, 'item')}"
        yield from (f"  {flaw}" for flaw in rebuilt.damaged_items.values())
    if rebuilt.labels_lost:
        yield f"locked labels that found no node: {', '.join(rebuilt.labels_lost)}"


def _shape(tree: _Shape) -> str:
    return (
        f"version {tree.tree_version}: {_count(tree.items, 'item')} in "
        f"{_count(tree.leaves, 'leaf', 'leaves')} ({tree.smallest_leaf} to {tree.largest_leaf}, "
        f"Gini {tree.gini:.2f}), {tree.depth} of at most {tree.depth_limit} levels"
    )


def _embedded(texts: _Embeddings) -> Iterator[str]:
    cost = "no price is known" if texts.cost_usd is None else f"{texts.cost_usd:.4f} USD"
    yield (
        f"{_count(texts.texts_asked, 'text')} embedded ({texts.tokens:,} tokens, {cost}), "
        f"{texts.texts_kept:,} known from before"
    )
    if texts.refused_items:
        yield f"without a vector, as the embedder refuses them: {', '.join(texts.refused_items)}"


def _written(labels: _Labels) -> str:
    cost = "no price is known" if labels.cost_usd is None else f"{labels.cost_usd:.4f} USD"
    usage = (
        f"{_count(labels.calls, 'call')}, {labels.input_tokens:,} tokens in and "
        f"{labels.output_tokens:,} out, {cost}"
    )
    if labels.nodes is not None:
        return f"labels of {_count(labels.nodes, 'node')} would take at most {usage}"
    kept = ", ".join(f"{count:,} {why}" for why, count in labels.kept.items())
    return f"{_count(labels.labelled, 'label')} written ({usage})" + (kept and f"; kept: {kept}")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
