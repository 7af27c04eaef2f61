"""What an evaluation shows: rows in a file, a table on the terminal, a page with plots."""

from app.evaluation.report.page import write
from app.evaluation.report.results import Results
from app.evaluation.report.rows import Bucket, Data, Row, Run, Spent
from app.evaluation.report.terminal import as_json, show

__all__ = ["Bucket", "Data", "Results", "Row", "Run", "Spent", "as_json", "show", "write"]
