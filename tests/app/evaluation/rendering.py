"""What is shown of rows: on a terminal, and on the page."""

import io
from collections.abc import Sequence
from html.parser import HTMLParser

from rich.console import Console

from app.evaluation.report import ResultRow, html, show


def printed_of(rows: Sequence[ResultRow], width: int, metrics: Sequence[str] | None = None) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, color_system=None)
    show(console, rows, metrics=metrics)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(rows: Sequence[ResultRow]) -> tuple[str, Page]:
    content = html(rows)
    parsed = Page()
    parsed.feed(content)
    return content, parsed
