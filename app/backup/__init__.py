"""Backup and restore of everything that stays in the store."""

from app.backup.archive import ArchiveReader, BadArchive, RestoreRefused
from app.backup.backup import backup_pieces
from app.backup.restore import Restore

__all__ = ["ArchiveReader", "BadArchive", "Restore", "RestoreRefused", "backup_pieces"]
