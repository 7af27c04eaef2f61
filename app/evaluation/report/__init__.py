"""The results of an evaluation: rows in a file, tables on the terminal, a page with plots.

A study makes one `ResultRow` per run (`ResultRow.of`), appends it to `Results`, and skips every
`Run` whose key is already there. The names of `Run.parameters` choose the plots: `training_share`
(0..1), `catalogue_size` (tokens, logarithmic), `diversity` (against NDCG), any other number (a
line), any other value (bars). Without parameters, systems are compared side by side and by bucket.
The study `topics` is shown by topic, the study `tokens` by model tokens per stage. A row may lack
what was not measured: all metrics, those over all cases, or the buckets.
"""

from app.evaluation.report.page import html, write
from app.evaluation.report.result_row import Bucket, Data, ModelUsage, ResultRow, Run
from app.evaluation.report.results import Results
from app.evaluation.report.terminal import as_json, show

__all__ = [
    "Bucket",
    "Data",
    "ModelUsage",
    "ResultRow",
    "Results",
    "Run",
    "as_json",
    "html",
    "show",
    "write",
]
