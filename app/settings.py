"""Everything that can be set, in one place; read from `UNILLMREC_…` in the composition root."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of the service. The README's table is made from these descriptions."""

    model_config = SettingsConfigDict(
        env_prefix="UNILLMREC_",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
    )

    data_dir: Path = Field(
        default=Path(".unillmrec"),
        description="Folder of the embedded store and of uploads in progress.",
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="A Redis or Valkey ≥ 6.2, `redis://…`, `rediss://…` or `unix://…`. "
        "Unset: a private Valkey in the data folder.",
    )
    key_prefix: str = Field(
        default="unillmrec",
        pattern=r"^[A-Za-z0-9_.:-]{1,64}$",
        description="First part of every key in the store.",
    )
    llm_base_url: str | None = Field(
        default=None, description="An OpenAI-compatible endpoint, such as `http://host:8000/v1`."
    )
    llm_api_key: SecretStr | None = Field(default=None, description="The key for that endpoint.")
    llm_model: str | None = Field(default=None, description="The model to ask.")
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
        description="Weight of ln(1 + popularity) in the score, where items state a popularity.",
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
        description="A catalogue that has grown by this factor since its last build is rebuilt.",
    )
    build_processes: int = Field(
        default=0, ge=0, description="Processes that read texts in a build; 0 for one per core."
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


def table() -> str:
    """The settings as the Markdown table of the README."""
    prefix = Settings.model_config["env_prefix"]
    lines = ["| variable | default | what it sets |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        lines.append(f"| `{prefix}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
