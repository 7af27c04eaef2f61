"""Options that requests, settings and commands share: each set of names stands here once."""

from typing import Literal, TypeAlias

StrategyName: TypeAlias = Literal["beam", "paper", "flat", "embedded"]
TaskName: TypeAlias = Literal["recommend", "search", "complement", "explore"]
EffortName: TypeAlias = Literal["economy", "balanced", "quality"]
BranchChoice: TypeAlias = Literal["model", "embedded", "union"]
"""Who chooses the branches of a tree search."""
