"""Everything that can be set: one class over parts, read from `UNILLMREC_…`."""

from app.settings.enrichment import PictureWay
from app.settings.environment import PREFIX
from app.settings.prices import ModelPrice
from app.settings.settings import Settings

__all__ = ["PREFIX", "ModelPrice", "PictureWay", "Settings"]
