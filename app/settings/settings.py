"""`Settings`: everything that can be set; the composition root reads it from `UNILLMREC_…`."""

from pathlib import Path
from typing import Literal

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import SettingsConfigDict

from app.embedders import DEFAULT_EMBEDDER, NAME_PATTERN, EndpointAddress
from app.settings.enrichment import EnrichmentSettings
from app.settings.environment import (
    PREFIX,
    check_key,
    check_variables,
    endpoint_key,
    with_key_from_file,
)
from app.settings.events import EventSettings
from app.settings.models import ModelSettings
from app.settings.prices import PriceSettings
from app.settings.ranking import RankingSettings


class Settings(
    RankingSettings,
    EnrichmentSettings,
    EventSettings,
    ModelSettings,
    PriceSettings,
):
    """Settings of the service. docs/settings.md is made from these descriptions."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        populate_by_name=True,
        hide_input_in_errors=True,  # the input holds secrets
    )

    admin_key: SecretStr | None = Field(
        default=None,
        description="The root key, at least 24 characters. With it every request needs a key: see "
        "docs/security.md. Unset: no key is needed, and only loopback addresses are served.",
    )
    admin_key_file: Path | None = Field(
        default=None, description="A file with the root key, instead of the variable above."
    )
    insecure: bool = Field(
        default=False,
        description="Like `serve --insecure`: without a root key, listen on any address and answer "
        "to any host name.",
    )
    data_dir: Path = Field(
        default=Path(".unillmrec"),
        description="Folder of the embedded store and of uploads in progress.",
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="A Redis or Valkey ≥ 6.2, `redis://…`, `rediss://…` or `unix://…`; "
        "a cluster is `redis+cluster://host:port,…`. Unset: a private Valkey in the data folder.",
    )
    fsync: Literal["everysec", "always"] = Field(
        default="everysec",
        description="When the embedded store writes its file to the disk. With `everysec`, a power "
        "loss costs the last second (two on a slow disk); with `always`, nothing, but writes are "
        "slower.",
    )
    key_prefix: str = Field(
        default="unillmrec",
        pattern=r"^[A-Za-z0-9_.:-]{1,64}$",
        description="First part of every key in the store.",
    )
    llm_base_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s@/]+(/\S*)?$",
        description="An OpenAI-compatible endpoint, for example `http://host:8000/v1`.",
    )
    llm_api_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("UNILLMREC_LLM_API_KEY", "OPENAI_API_KEY"),
        description="The key for that endpoint. Unset: `OPENAI_API_KEY`.",
    )
    llm_model: str | None = Field(
        default=None, description="The model to ask. Unset: items are ranked by vectors alone."
    )
    llm_profile_model: str | None = Field(
        default=None, description="Another model for profiles, at the same endpoint."
    )
    llm_search_model: str | None = Field(
        default=None,
        description="Another, cheaper model for branches, with the strategies `walk` and `paper`.",
    )
    llm_recall_model: str | None = Field(
        default=None, description="Another model for the first scores of items (recall)."
    )
    llm_rerank_model: str | None = Field(
        default=None,
        description="Another, stronger model for the final scores of items (rerank), with the "
        "strategies `paper` and `flat`.",
    )
    llm_label_model: str | None = Field(
        default=None, description="Another model for the labels of the tree."
    )
    llm_reply_mode: Literal[
        "auto", "json_schema", "json_object", "text", "logprobs", "decisions", "predicates"
    ] = Field(
        default="auto",
        description="The form in which a model must reply. `auto` tries json_schema, json_object "
        "and text.",
    )
    llm_reasoning_effort: str | None = Field(
        default=None,
        pattern=r"^[a-z]{1,20}$",
        description="How much a reasoning model thinks: `minimal`, `low`, `medium` or `high`, as "
        "the endpoint names it. Unset: as much as the model does by itself.",
    )
    llm_max_tokens: int = Field(
        default=200_000, ge=1, description="Most tokens, input and output, for one request."
    )
    llm_max_cost_usd: float | None = Field(
        default=None,
        ge=0,
        description="Most that one request may cost, also if the request allows more.",
    )
    llm_timeout_s: float = Field(
        default=20.0, gt=0, le=600, description="Timeout of one call to the model."
    )
    llm_concurrency: int = Field(
        default=64, ge=1, description="Concurrent calls to models, per process."
    )
    llm_labels: bool = Field(
        default=True,
        description="Whether a model writes the labels of the tree, if one is set that writes "
        "text.",
    )
    llm_label_cost_usd: float = Field(
        default=1.0,
        ge=0,
        description="Most that the labels of one rebuild may cost, unless the rebuild sets "
        "`max_cost_usd`.",
    )
    llm_label_max_tokens: int = Field(
        default=10_000_000,
        ge=1,
        description="Most tokens, input and output, for the labels of one rebuild; the only limit "
        "when no price is known.",
    )
    llm_label_refresh_usd: float = Field(
        default=0.25,
        ge=0,
        description="Most that new labels may cost in an hour, per process and catalogue, for "
        "branches that writes have changed.",
    )
    llm_label_concurrency: int = Field(
        default=8,
        ge=1,
        description="Concurrent calls for labels, of all concurrent calls to models.",
    )
    label_ttl_s: int = Field(
        default=2_592_000,
        ge=60,
        le=31_536_000,
        description="How long the labels of a model are reused for branches with the same content.",
    )
    profile_ttl_s: int = Field(
        default=86_400,
        ge=1,
        le=2_592_000,
        description="How long a model's profile of a user is reused.",
    )
    slate_cache_ttl_s: int = Field(
        default=0,
        ge=0,
        le=2_592_000,
        description="How long a model's reply to the same slate is reused; 0 for never.",
    )
    embedder: str = Field(
        default=DEFAULT_EMBEDDER,
        pattern=NAME_PATTERN,
        description="The embedder of new catalogues: `hybrid` (how words are spelt and what they "
        "mean), `lexical` (spelling alone), `minilm`, `openai:MODEL` or "
        "`sentence-transformers:FOLDER` (a name on the model hub works too), the last three also "
        "with spelling: `hybrid+minilm`, `hybrid+openai:MODEL`, …. A catalogue keeps its "
        "embedder until a rebuild gives it another one.",
    )
    embedder_base_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s@/]+(/\S*)?$",
        description="The OpenAI-compatible endpoint of `openai:MODEL`. Unset: "
        "`UNILLMREC_LLM_BASE_URL`.",
    )
    embedder_api_key: SecretStr | None = Field(
        default=None,
        description="The key for that endpoint. Unset: `UNILLMREC_LLM_API_KEY`, if both endpoints "
        "are the same.",
    )
    embedder_timeout_s: float = Field(
        default=2.0,
        gt=0,
        le=600,
        description="Longest that a recommendation waits for the vectors of its texts; after that "
        "it continues without them.",
    )
    history_items: int = Field(
        default=10, ge=1, le=50, description="How many of the newest history items are used."
    )
    sharpness: float = Field(
        default=8.0,
        gt=0,
        le=64,
        description="Inverse temperature: how much the most similar interest outweighs the others "
        "in an item's score.",
    )
    cooccurrence_shrinkage: float = Field(
        default=15.0,
        ge=0,
        description="Added to each item's number of users: the higher, the more users must have "
        "had both items until co-occurrence counts.",
    )
    freshness_half_life_days: float = Field(
        default=7.0, gt=0, le=36_500, description="Half-life of freshness."
    )
    exact_scan_items: int = Field(
        default=50_000,
        ge=0,
        description="Catalogues of at most this size are scored whole for each request.",
    )
    beam_leaves: int = Field(
        default=200, ge=1, description="Leaves that a request scores in larger catalogues."
    )
    beam_breadth: int = Field(
        default=96, ge=1, description="Inner nodes that this search expands per level."
    )
    commit_window_ms: float = Field(
        default=2.0,
        ge=0,
        le=1_000,
        description="Writes that arrive within this time share a commit.",
    )
    rebuild_growth: float = Field(
        default=2.0,
        gt=1,
        description="A catalogue of n items is rebuilt once (this factor − 1) × n new items have "
        "arrived since its last build; removed items are not subtracted.",
    )
    build_processes: int = Field(
        default=0, ge=0, description="Processes of a build on this machine; 0: one per core."
    )
    build_engine: Literal["local", "ray"] = Field(
        default="local", description="Where trees are built: on this machine, or on a Ray cluster."
    )
    ray_address: str = Field(
        default="auto",
        min_length=1,
        description="Address of the Ray cluster: `auto` for the cluster of this machine, "
        "`host:6379`, or `ray://host:10001` from outside of the cluster.",
    )
    kept_versions: int = Field(
        default=2,
        ge=1,
        le=20,
        description="How many published trees are stored, the one in use included; each takes "
        "about 380 B per item. With 1 there is no earlier tree to activate.",
    )
    trace_ttl_s: int = Field(
        default=900,
        ge=1,
        le=2_592_000,
        description="How long the trace of a recommendation is stored.",
    )
    job_ttl_s: int = Field(
        default=604_800, ge=60, le=31_536_000, description="How long a job is stored."
    )
    filter_memory_mb: int = Field(
        default=256,
        ge=1,
        description="Most memory, per process, for fields that filters use: 12 B per value, so "
        "256 MB hold 20 million values.",
    )
    max_connections: int = Field(
        default=1_000,
        ge=1,
        description="Open connections of one process; further ones are answered with 503.",
    )
    max_body_bytes: int = Field(
        default=4_194_304, ge=1_024, description="Largest JSON body that is accepted."
    )
    max_import_bytes: int = Field(
        default=8_589_934_592, ge=1_024, description="Largest import that is accepted."
    )
    max_unpacked_bytes: int = Field(
        default=34_359_738_368,
        ge=1_024,
        description="Largest size of a gzipped import after unpacking. Above 64 MB it must also "
        "be at most 200 times as large as the compressed import.",
    )

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_variable(cls, values: dict[str, object]) -> dict[str, object]:
        check_variables(cls.model_fields)
        return values

    @model_validator(mode="before")
    @classmethod
    def _key_from_file(cls, values: dict[str, object]) -> dict[str, object]:
        return with_key_from_file(values)

    @field_validator("admin_key")
    @classmethod
    def _key_fits_a_header(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None:
            check_key(key.get_secret_value())
        return key

    @field_validator("llm_api_key", "embedder_api_key")
    @classmethod
    def _key_of_endpoint(cls, key: SecretStr | None) -> SecretStr | None:
        return None if key is None else SecretStr(endpoint_key(key.get_secret_value()))

    @model_validator(mode="after")
    def _budget_has_a_price(self) -> "Settings":
        self.check_budget_of(self.embedder)
        return self

    @property
    def embedder_endpoint(self) -> EndpointAddress:
        """The endpoint of `openai:MODEL`. A key of the chat model is only sent to its endpoint."""
        base_url, key = self.embedder_base_url, self.embedder_api_key
        if base_url in (None, self.llm_base_url):
            base_url, key = self.llm_base_url, key or self.llm_api_key
        return EndpointAddress(base_url, key.get_secret_value() if key else None)

    @property
    def uploads(self) -> Path:
        """The folder of imports that have not ended."""
        return self.data_dir / "uploads"

    @property
    def runs(self) -> Path:
        """The folder of recommendation runs and their lists."""
        return self.data_dir / "runs"

    @property
    def builds(self) -> Path:
        """The folder of files that the processes of a build share."""
        return self.data_dir / "builds"
