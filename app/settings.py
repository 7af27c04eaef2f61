"""Everything that can be set, in one place; read from `UNILLMREC_…` in the composition root."""

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ModelPrice(BaseModel):
    """What a model costs, in dollars per million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)


class Settings(BaseSettings):
    """Settings of the service. The README's table is made from these descriptions."""

    model_config = SettingsConfigDict(
        env_prefix="UNILLMREC_",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        populate_by_name=True,
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
        description="When the embedded store's file reaches the disk: a power loss costs the last "
        "second (two on a slow disk), or nothing, with slower writes.",
    )
    key_prefix: str = Field(
        default="unillmrec",
        pattern=r"^[A-Za-z0-9_.:-]{1,64}$",
        description="First part of every key in the store.",
    )
    llm_base_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s@/]+(/\S*)?$",
        description="An OpenAI-compatible endpoint, such as `http://host:8000/v1`.",
    )
    llm_api_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("UNILLMREC_LLM_API_KEY", "OPENAI_API_KEY"),
        description="The key for that endpoint; else `OPENAI_API_KEY`.",
    )
    llm_model: str | None = Field(
        default=None, description="The model to ask. Unset: the embedded ranker answers."
    )
    llm_profile_model: str | None = Field(
        default=None, description="Another model for profiles, at the same endpoint."
    )
    llm_search_model: str | None = Field(
        default=None, description="Another, cheaper model for the search through the tree."
    )
    llm_recall_model: str | None = Field(
        default=None, description="Another model for the first look at items."
    )
    llm_rerank_model: str | None = Field(
        default=None, description="Another, stronger model for the last look at items."
    )
    llm_label_model: str | None = Field(
        default=None, description="Another model for the labels of the tree."
    )
    llm_prices: dict[str, ModelPrice] = Field(
        default={},
        description='Dollars per million tokens, by model: `{"m": {"input": 1, "output": 4, '
        '"cached": 0.1}}`. Without them calls count as free.',
    )
    llm_reply_mode: Literal[
        "auto", "json_schema", "json_object", "text", "logprobs", "decisions", "predicates"
    ] = Field(
        default="auto",
        description="How replies are asked for. `auto` tries json_schema, json_object and text.",
    )
    llm_branches: Literal["model", "embedded", "union"] = Field(
        default="model", description="Who chooses branches of the tree: the model, or the vectors."
    )
    llm_weight: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="Share of the model's order, against that of the embedded ranker.",
    )
    llm_anchors: int = Field(
        default=6,
        ge=0,
        le=16,
        description="Options that slates judged side by side share, to put them on one scale.",
    )
    llm_max_tokens: int = Field(
        default=200_000, ge=1, description="Most tokens, read and written, for one request."
    )
    llm_max_cost_usd: float | None = Field(
        default=None, ge=0, description="Most that one request may cost, whatever it allows."
    )
    llm_timeout_s: float = Field(
        default=20.0, gt=0, le=600, description="Longest that one call to the model may take."
    )
    llm_concurrency: int = Field(
        default=64, ge=1, description="Calls to the models at once, per process."
    )
    llm_labels: bool = Field(
        default=True,
        description="Whether a model, where there is one that writes text, labels the tree.",
    )
    llm_label_cost_usd: float = Field(
        default=1.0,
        ge=0,
        description="Most that the labels of one rebuild may cost unless it says `max_cost_usd`.",
    )
    llm_label_max_tokens: int = Field(
        default=10_000_000,
        ge=1,
        description="Most tokens, read and written, for the labels of one rebuild; the bound that "
        "holds where no price is known.",
    )
    llm_label_refresh_usd: float = Field(
        default=0.25,
        ge=0,
        description="Most that labels of branches which writes have reshaped may cost in an hour, "
        "per process and catalogue.",
    )
    llm_label_concurrency: int = Field(
        default=8, ge=1, description="Calls for labels at once: the other calls are for readers."
    )
    label_ttl_s: int = Field(
        default=2_592_000,
        ge=60,
        le=31_536_000,
        description="How long a model's labels are used again for branches of the same content.",
    )
    profile_ttl_s: int = Field(
        default=86_400,
        ge=1,
        le=2_592_000,
        description="How long a model's profile of a reader is used again.",
    )
    slate_cache_ttl_s: int = Field(
        default=0,
        ge=0,
        le=2_592_000,
        description="How long a model's answers to the same slate are used again; 0 for never.",
    )
    embedder: str = Field(
        default="lexical",
        pattern=r"^(lexical|(openai|sentence-transformers):\S.*)$",
        description="The embedder of catalogues that are created here: `lexical`, `openai:MODEL` "
        "or `sentence-transformers:FOLDER`, where a name on the model hub does, too. A catalogue "
        "keeps its own.",
    )
    embedder_base_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s@/]+(/\S*)?$",
        description="The OpenAI-compatible endpoint of `openai:MODEL`; else "
        "`UNILLMREC_LLM_BASE_URL`.",
    )
    embedder_api_key: SecretStr | None = Field(
        default=None,
        description="The key for that endpoint; else `UNILLMREC_LLM_API_KEY`, where the endpoint "
        "is the same.",
    )
    embedder_timeout_s: float = Field(
        default=2.0,
        gt=0,
        le=600,
        description="Longest that a recommendation waits for its words to be embedded; it goes on "
        "without them.",
    )
    history_items: int = Field(
        default=10, ge=1, le=50, description="Newest history items that make up a need."
    )
    history_decay: float = Field(
        default=0.8, gt=0, le=1, description="Weight of a history item against the next newer one."
    )
    wish_weight: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of the need that words get where there is a history too.",
    )
    sharpness: float = Field(
        default=8.0,
        gt=0,
        le=64,
        description="How much the nearest interest outweighs the others in an item's score.",
    )
    popularity_weight: float = Field(
        default=0.025,
        ge=0,
        le=10,
        description="Weight of ln(1 + popularity) in the score: what items state, and how many "
        "users had them.",
    )
    cold_start_prior: float = Field(
        default=8.0,
        ge=1,
        le=100,
        description="How many times as much it counts how many users had an item, for a reader "
        "without a history; for one with n items a 1/(1+n) of what that adds.",
    )
    cooccurrence_weight: float = Field(
        default=30.0,
        ge=0,
        le=1_000,
        description="Weight of what users had along with the reader's history, where there are "
        "events; 0 leaves it out.",
    )
    cooccurrence_shrinkage: float = Field(
        default=30.0,
        ge=0,
        description="Users that are added to the count of either item: how much evidence it takes "
        "until co-occurrence weighs.",
    )
    freshness_weight: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="Weight of an item's freshness, 1 on its day and half of that after each "
        "half-life, where items state `published_at`.",
    )
    freshness_half_life_days: float = Field(
        default=7.0, gt=0, le=36_500, description="That half-life."
    )
    user_ttl_s: int = Field(
        default=31_536_000,
        ge=60,
        le=315_360_000,
        description="How long a user of whom nothing is heard stays stored.",
    )
    diversity: float = Field(
        default=0.1, ge=0, le=1, description="Diversity of an answer unless the request says."
    )
    exact_scan_items: int = Field(
        default=50_000, ge=0, description="Up to this many items a request scores all of them."
    )
    beam_leaves: int = Field(
        default=200, ge=1, description="Leaves that a request scores in larger catalogues."
    )
    beam_breadth: int = Field(
        default=96, ge=1, description="Inner nodes expanded per level of that search."
    )
    commit_window_ms: float = Field(
        default=2.0,
        ge=0,
        le=1_000,
        description="Writes that arrive this close together share a commit.",
    )
    rebuild_growth: float = Field(
        default=2.0,
        gt=1,
        description="A catalogue is rebuilt once so many items have come since its last build "
        "that, had none left, it would have grown by this factor.",
    )
    build_processes: int = Field(
        default=0, ge=0, description="Processes of a build on this machine; 0 for one per core."
    )
    build_engine: Literal["local", "ray"] = Field(
        default="local", description="Where trees are built: here, or on a Ray cluster."
    )
    ray_address: str = Field(
        default="auto",
        min_length=1,
        description="That cluster: `auto` for the one of this machine, `host:6379`, or "
        "`ray://host:10001` from outside.",
    )
    kept_versions: int = Field(
        default=2,
        ge=1,
        le=20,
        description="Published trees that stay, the one in use included; each takes some 330 B "
        "an item. With 1 there is none to go back to.",
    )
    trace_ttl_s: int = Field(
        default=900,
        ge=1,
        le=2_592_000,
        description="How long the trace of a recommendation can be read.",
    )
    job_ttl_s: int = Field(
        default=604_800, ge=60, le=31_536_000, description="How long a job can be read."
    )
    max_body_bytes: int = Field(
        default=4_194_304, ge=1_024, description="Largest JSON body that is accepted."
    )
    max_import_bytes: int = Field(
        default=8_589_934_592, ge=1_024, description="Largest import that is accepted."
    )

    @property
    def uploads(self) -> Path:
        """The folder of imports that are not done yet."""
        return self.data_dir / "uploads"

    @property
    def builds(self) -> Path:
        """The folder of what processes share in a build."""
        return self.data_dir / "builds"


def table() -> str:
    """The settings as the Markdown table of the README."""
    prefix = Settings.model_config["env_prefix"]
    lines = ["| variable | default | what it sets |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, {}) else f"`{field.default}`"
        lines.append(f"| `{prefix}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
