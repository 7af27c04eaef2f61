"""`PriceSettings`: what models cost; what embeddings may cost, and how long they are kept."""

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings


class ModelPrice(BaseModel):
    """What a model costs, in dollars per million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)


class PriceSettings(BaseSettings):
    """A part of Settings."""

    llm_prices: dict[str, ModelPrice] = Field(
        default={},
        description="Dollars per million tokens, by model, also of embedders: "
        '`{"m": {"input": 1, "output": 4, "cached": 0.1}}`. '
        "A model without a price counts as free.",
    )
    embedder_max_cost_usd_per_day: float | None = Field(
        default=None,
        ge=0,
        description="Most that `openai:MODEL` may cost in a day (UTC), for all processes together. "
        "It needs a price in `UNILLMREC_LLM_PRICES`.",
    )
    vector_ttl_s: int = Field(
        default=7_776_000,
        ge=0,
        le=315_360_000,
        description="How long the vector of an item's text by `openai:MODEL` is kept after its "
        "last use, so that the model is not asked for it again; 0 for never. It takes 1.7 kB with "
        "a model of 1,536 dimensions.",
    )

    def check_budget_of(self, embedder: str) -> None:
        """Raises ValueError for a budget that cannot limit this embedder without its price."""
        kind, _, model = embedder.partition(":")
        has_budget = self.embedder_max_cost_usd_per_day is not None
        if has_budget and kind.endswith("openai") and model not in self.llm_prices:
            raise ValueError(
                "UNILLMREC_EMBEDDER_MAX_COST_USD_PER_DAY needs the price of the embedder: set "
                f'UNILLMREC_LLM_PRICES, for example {{"{model}": {{"input": 0.02, "output": 0}}}}'
            )
