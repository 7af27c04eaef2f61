"""Options that requests, settings and commands share: each set of names stands here once."""

from typing import Literal, TypeAlias

StrategyName: TypeAlias = Literal["beam", "walk", "paper", "flat", "embedded"]
TaskName: TypeAlias = Literal["recommend", "search", "complement", "explore", "trending"]
EffortName: TypeAlias = Literal["auto", "economy", "balanced"]
BranchChoice: TypeAlias = Literal["model", "embedded", "union"]
"""Who chooses the branches of a tree search."""
