"""Labels that a language model writes, for all nodes of a tree or for those that have changed."""

from app.curate.labels.label_writer import LabelResult, LabelWriter
from app.curate.labels.refresher import LabelRefresher

__all__ = ["LabelRefresher", "LabelResult", "LabelWriter"]
