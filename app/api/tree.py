"""The tree: get, relabel, rebuild."""

from enum import StrEnum
from functools import partial
from http import HTTPStatus
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from app.api.bodies import MERGE_PATCH, json_body, optional_json_body
from app.api.dependencies import TheCatalog, TheCatalogs
from app.api.problems import ApiError, FieldError, invalid
from app.api.schema import READS_JSON, problems, takes
from app.catalogs import Catalog, UnknownEmbedder
from app.curate import RebuildParams
from app.jobs import Job
from tree.inspect import Outline, graphml, node_link, outline, run_in_view_thread, within
from tree.item import WHOLE
from tree.node import ROOT, Node
from tree.snapshot import SemanticTree

router = APIRouter(prefix="/v1/catalogs/{catalog}/tree", tags=["tree"])

GRAPHML = "application/graphml+xml"
_MOST_NODES = 100_000  # of one view: about 20 MB, and seconds of a thread

_NodeId = Annotated[int, Path(ge=0, description="The root is 0.")]


class TreeFormat(StrEnum):
    """The format of a tree: our own, or one of networkx."""

    JSON = "json"
    NODE_LINK = "node-link"
    GRAPHML = "graphml"


_MEDIA_TYPES = {
    TreeFormat.JSON: "application/json",
    TreeFormat.NODE_LINK: "application/json",
    TreeFormat.GRAPHML: GRAPHML,
}


class TreeQuery(BaseModel):
    """Which part of the tree, and its format."""

    model_config = ConfigDict(frozen=True)

    root: int = Field(default=ROOT, ge=0)
    depth: int = Field(default=2, ge=0, le=4, description="Levels below `root`.")
    format: TreeFormat = TreeFormat.JSON


class TreeView(BaseModel):
    """The upper levels of a tree."""

    catalog: str
    tree_version: int
    items: int
    nodes: int
    depth: int
    tree: Outline


class NodeLinkView(BaseModel):
    """The same in the format of networkx' `node_link_graph`."""

    directed: bool
    multigraph: bool
    graph: dict[str, JsonValue]
    nodes: list[dict[str, JsonValue]]
    edges: list[dict[str, JsonValue]]


class NodeBrief(BaseModel):
    """A node as other nodes show it."""

    id: int
    label: str
    signpost: str
    count: int


class LeafItem(BaseModel):
    """An item as its leaf shows it."""

    item_id: str
    title: str


class NodeView(NodeBrief):
    """A node with its path, and its children or the items of a leaf."""

    catalog: str
    tree_version: int
    locked: bool = Field(description="Whether a rebuild keeps its label.")
    height: int
    path: list[NodeBrief] = Field(description="From below the root down to the node.")
    children: list[NodeBrief]
    items: list[LeafItem]


class NodePatch(BaseModel):
    """A new label for a node, which is then locked unless `locked` is false; or only the lock."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"label": "Quiet science fiction", "locked": True}],
            "anyOf": [
                {"required": ["label"], "properties": {"label": {"type": "string"}}},
                {"required": ["locked"], "properties": {"locked": {"type": "boolean"}}},
            ],
        },
    )

    label: (
        Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
        | None
    ) = None
    locked: bool | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> "NodePatch":
        if self.label is None and self.locked is None:
            raise ValueError("give label, locked or both")
        return self


class RebuildRequest(BaseModel):
    """What to build anew."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"mode": "full"}],
            "anyOf": [
                {
                    "required": ["mode", "root"],
                    "properties": {"mode": {"const": "subtree"}, "root": {"type": "integer"}},
                },
                {"properties": {"mode": {"enum": ["full", "relabel"]}, "root": {"type": "null"}}},
            ],
        },
    )

    mode: Literal["full", "relabel", "subtree"] = "full"
    root: Annotated[int, Field(ge=0), WHOLE] | None = Field(
        default=None, description="The node of mode `subtree`."
    )
    embedder: Annotated[str, Field(max_length=200)] | None = Field(
        default=None,
        description="The embedder of mode `full`, where it is not to be the one that the catalogue "
        "has: `hybrid`, `lexical`, or the one that this service was started with.",
    )
    dry_run: bool = Field(default=False, description="Build and measure, but do not publish.")
    max_cost_usd: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="Most that it may cost: the embedder, then the model that writes the labels.",
    )

    @model_validator(mode="after")
    def _root_of_a_subtree(self) -> "RebuildRequest":
        if (self.mode == "subtree") != (self.root is not None):
            raise ValueError("mode subtree needs a root, and no other mode takes one")
        if self.mode != "full" and self.embedder is not None:
            raise ValueError("only mode full takes an embedder")
        return self


@router.get(
    "",
    operation_id="get_tree",
    response_model=TreeView | NodeLinkView,
    responses={
        **problems(),
        200: {"content": {GRAPHML: {"schema": {"type": "string"}}}},
    },
)
async def get_tree(catalog: TheCatalog, query: Annotated[TreeQuery, Query()]) -> Response:
    """Get the upper levels of the tree, with labels and counts. 422 for too many nodes."""
    tree = await catalog.store.load()
    content = await run_in_view_thread(partial(_written, catalog.name, tree, query))
    return Response(content, media_type=_MEDIA_TYPES[query.format])


def _written(catalog: str, tree: SemanticTree, query: TreeQuery) -> bytes:
    """A part of the tree as the body of an answer. Raises ApiError."""
    if not within(tree, query.root, query.depth, _MOST_NODES):
        detail = f"these are more than {_MOST_NODES:,} nodes: ask for fewer levels, or a lower root"
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "too_many_nodes", detail)
    match query.format:
        case TreeFormat.NODE_LINK:
            return msgspec.json.encode(node_link(tree, query.root, query.depth))
        case TreeFormat.GRAPHML:
            return graphml(tree, query.root, query.depth).encode()
        case TreeFormat.JSON:
            view = TreeView(
                catalog=catalog,
                tree_version=tree.version,
                items=len(tree),
                nodes=tree.node_count,
                depth=tree.root.height,
                tree=outline(tree, query.root, query.depth),
            )
            return view.model_dump_json().encode()


@router.get("/nodes/{node_id}", operation_id="get_node", responses=problems())
async def get_node(catalog: TheCatalog, node_id: _NodeId) -> NodeView:
    """Get a node with its path, and its children or items."""
    tree = await catalog.store.load()
    return await _view(catalog, tree, tree.node(node_id))


@router.patch(
    "/nodes/{node_id}",
    operation_id="patch_node",
    responses=problems(*READS_JSON),
    openapi_extra=takes(NodePatch, *MERGE_PATCH),
)
async def patch_node(
    catalog: TheCatalog,
    node_id: _NodeId,
    patch: Annotated[NodePatch, Depends(json_body(NodePatch, MERGE_PATCH))],
) -> NodeView:
    """Rename a node, or lock or unlock its label."""
    locked = True if patch.locked is None else patch.locked
    node = await catalog.curator.rename(node_id, patch.label, locked)
    return await _view(catalog, await catalog.store.load(), node)


@router.post(
    "/rebuilds",
    operation_id="rebuild_tree",
    status_code=HTTPStatus.ACCEPTED,
    responses=problems(*READS_JSON, HTTPStatus.CONFLICT),
    openapi_extra=takes(RebuildRequest, required=False),
)
async def rebuild_tree(
    response: Response,
    catalogs: TheCatalogs,
    catalog: TheCatalog,
    rebuild: Annotated[RebuildRequest, Depends(optional_json_body(RebuildRequest))],
) -> Job:
    """Rebuild the tree; writes continue. 409, with its `job_id`, while another rebuild runs.

    Locked labels move to the nodes with their categories, or with most of their items; the job's
    `result` lists labels without such a node in `labels_lost`. With another `embedder`, the version
    before can be activated again.
    """
    try:
        catalogs.check_embedder(rebuild.embedder)
    except UnknownEmbedder as error:
        flaw = FieldError(source="body", pointer="/embedder", message=str(error))
        raise invalid([flaw]) from error
    job = await catalog.curator.start_rebuild(RebuildParams(**rebuild.model_dump()))
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job


async def _view(catalog: Catalog, tree: SemanticTree, node: Node) -> NodeView:
    ids = [tree.rows.id(row) for row in node.rows.tolist()]
    records = await catalog.store.items(ids)
    return NodeView(
        **_brief(node).model_dump(),
        catalog=catalog.name,
        tree_version=tree.version,
        locked=node.locked,
        height=node.height,
        path=[_brief(step) for step in tree.path(node.id)],
        children=[_brief(child) for child in tree.children(node)],
        items=[
            LeafItem(item_id=item_id, title=records[item_id].title)
            for item_id in ids
            if item_id in records
        ],
    )


def _brief(node: Node) -> NodeBrief:
    return NodeBrief(id=node.id, label=node.label, signpost=node.signpost, count=node.count)
