"""Files of events, histories and items, as rows: the same for `events` and `evaluate`."""

from app.data_files.event_rows import EventRow, HistoryRow, event_rows
from app.data_files.files import DataError, DataFile, FileLoad, Progress, Skipped
from app.data_files.values import id_text, seconds

__all__ = [
    "DataError",
    "DataFile",
    "EventRow",
    "FileLoad",
    "HistoryRow",
    "Progress",
    "Skipped",
    "event_rows",
    "id_text",
    "seconds",
]
