"""The one way that items and labels take into a tree: plan, commit, and again when overtaken."""

from app.curate.writes.commit_queue import TooManyWrites
from app.curate.writes.line_writes import LineResult
from app.curate.writes.sizes import COMMIT_ITEMS
from app.curate.writes.writer import Writer

__all__ = ["COMMIT_ITEMS", "LineResult", "TooManyWrites", "Writer"]
