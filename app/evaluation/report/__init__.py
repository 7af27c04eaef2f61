"""What an evaluation shows: rows in a file, a table on the terminal, a page with plots.

A study makes one `Row` per run (`Row.of`), appends it to `Results`, and skips every `Run` whose key
is there already. The names of `Run.parameters` choose the plots: `training_share` (0..1),
`catalogue_size` (tokens, logarithmic), `diversity` (against NDCG), any other number (a line along
it), any other value (bars). Without parameters systems stand side by side, and by bucket. Rows of
the study `topics` are shown topic by topic; those of `tokens` by what each stage asked of a model.
Rows may lack what was not measured: all metrics, those over all cases, or the buckets.
"""

from app.evaluation.report.page import html, write
from app.evaluation.report.results import Results
from app.evaluation.report.rows import Bucket, Data, Row, Run, Spent
from app.evaluation.report.terminal import as_json, show

__all__ = [
    "Bucket",
    "Data",
    "Results",
    "Row",
    "Run",
    "Spent",
    "as_json",
    "html",
    "show",
    "write",
]
