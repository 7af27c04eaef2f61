"""What came of recommendations: answers and events that name them, joined and counted."""

from app.attribution.attributor import NONE, Answered, Attributor, measure_of, today
from app.attribution.estimates import Difference, Estimate
from app.attribution.list_ids import new_list_id
from app.attribution.report import By, Differences, Report, ReportRow, report

__all__ = [
    "NONE",
    "Answered",
    "Attributor",
    "By",
    "Difference",
    "Differences",
    "Estimate",
    "Report",
    "ReportRow",
    "measure_of",
    "new_list_id",
    "report",
    "today",
]
