"""Labels that a language model writes for the nodes of a tree: all of them, or those of late."""

from app.curate.labels.model import Labels, ModelLabels
from app.curate.labels.refresher import LabelRefresher

__all__ = ["LabelRefresher", "Labels", "ModelLabels"]
