"""`ModelSettings`: what a model decides, and how far it is trusted."""

from pydantic import Field
from pydantic_settings import BaseSettings

from app.options import BranchChoice


class ModelSettings(BaseSettings):
    """A part of Settings."""

    llm_branches: BranchChoice = Field(
        default="model",
        description="What chooses branches of the tree: the model, the vectors, or both together.",
    )
    llm_anchors: int = Field(
        default=6,
        ge=0,
        le=16,
        description="Options that are part of several slates, so that the scores of these slates "
        "can be compared.",
    )
    llm_examination: bool = Field(
        default=True,
        description="Whether a model must earn its weight: once a day it is asked about a few "
        "slates of each catalogue in use whose answer is known, for at most 20,000 tokens. At "
        "chance it ranks nothing until the next day. Without it every model has `_LLM_WEIGHT`.",
    )
