"""Settings of a service that asks a model."""

from pathlib import Path
from secrets import token_hex
from typing import Any

from app.settings import Settings
from tests.servers.hostile import MODEL

CATALOG = "/v1/catalogs/default"


def with_model(
    folder: Path, store_url: str, model_url: str, model: str = MODEL, **more: Any
) -> Settings:
    return Settings(
        data_dir=folder,
        redis_url=store_url,
        key_prefix=f"test-{token_hex(6)}",
        llm_base_url=model_url,
        llm_api_key="key",
        llm_model=model,
        # Calls for labels and examinations would be counted too.
        **{"llm_labels": False, "llm_examination": False, **more},
    )
