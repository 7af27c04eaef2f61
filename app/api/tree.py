"""The tree itself: looked at, relabelled, rebuilt."""

from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.api.access import TheCatalog
from app.api.bodies import MERGE_PATCH, json_body, optional_json_body
from app.api.schema import READS_JSON, problems, takes
from app.catalogs import Catalog
from app.curate import RebuildParams
from app.jobs import Job
from tree.inspect import Outline, graphml, node_link, outline
from tree.node import ROOT, Node
from tree.snapshot import SemanticTree

router = APIRouter(prefix="/v1/catalogs/{catalog}/tree", tags=["tree"])

GRAPHML = "application/graphml+xml"

_NodeId = Annotated[int, Path(ge=0, description="The root is 0.")]


class TreeFormat(StrEnum):
    """How a tree is written: our own form, or one of networkx'."""

    JSON = "json"
    NODE_LINK = "node-link"
    GRAPHML = "graphml"


class TreeQuery(BaseModel):
    """Which part of the tree, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


class NodeBrief(BaseModel):
    """A node as its neighbours show it."""

    id: int
    label: str
    signpost: str
    count: int


class LeafItem(BaseModel):
    """An item as its leaf shows it."""

    item_id: str
    title: str


class NodeView(NodeBrief):
    """A node, the way to it, and what is below: nodes, or the items of a leaf."""

    catalog: str
    tree_version: int
    locked: bool = Field(description="Whether its label is kept when the tree is labelled anew.")
    height: int
    path: list[NodeBrief] = Field(description="From below the root down to the node.")
    children: list[NodeBrief]
    items: list[LeafItem]


class NodePatch(BaseModel):
    """A new label for a node, which locks it unless told otherwise; or only the lock."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"label": "Quiet science fiction", "locked": True}]},
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
        frozen=True, extra="forbid", strict=True, json_schema_extra={"examples": [{"mode": "full"}]}
    )

    mode: Literal["full", "relabel", "subtree"] = "full"
    root: int | None = Field(default=None, ge=0, description="The node of mode `subtree`.")
    dry_run: bool = Field(default=False, description="Build and measure, but do not publish.")
    max_cost_usd: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=False)] | None = Field(
        default=None, description="Most that a model may cost which writes the labels."
    )

    @model_validator(mode="after")
    def _root_of_a_subtree(self) -> "RebuildRequest":
        if (self.mode == "subtree") != (self.root is not None):
            raise ValueError("mode subtree needs a root, and no other mode takes one")
        return self


@router.get(
    "",
    operation_id="get_tree",
    response_model=TreeView,
    responses={
        **problems(),
        200: {"content": {GRAPHML: {"schema": {"type": "string"}}}},
    },
)
async def get_tree(
    catalog: TheCatalog, query: Annotated[TreeQuery, Query()]
) -> TreeView | Response:
    """The upper levels of the tree, with labels and counts."""
    tree = await catalog.store.load()
    match query.format:
        case TreeFormat.NODE_LINK:
            return JSONResponse(node_link(tree, query.root, query.depth))
        case TreeFormat.GRAPHML:
            return Response(graphml(tree, query.root, query.depth), media_type=GRAPHML)
        case TreeFormat.JSON:
            return TreeView(
                catalog=catalog.name,
                tree_version=tree.version,
                items=len(tree),
                nodes=tree.node_count,
                depth=tree.root.height,
                tree=outline(tree, query.root, query.depth),
            )


@router.get("/nodes/{node_id}", operation_id="get_node", responses=problems())
async def get_node(catalog: TheCatalog, node_id: _NodeId) -> NodeView:
    """A node, the way to it, and what is below."""
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
    catalog: TheCatalog,
    rebuild: Annotated[RebuildRequest, Depends(optional_json_body(RebuildRequest))],
) -> Job:
    """Build the tree anew while ingestion goes on. 409, with its `job_id`, while another one
    runs.

    Locked labels stay with the nodes of their categories, or of most of their items; the job's
    `result` names in `labels_lost` those that found none.
    """
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
