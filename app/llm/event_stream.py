"""An answer that comes as a stream of events though none was asked for, put together."""

from collections.abc import Iterator

from app.llm.plain_json import UNREADABLE, decoded, items_of, member

_FIRST = (b"data:", b"event:", b"id:", b"retry:")


def without_comments(content: bytes) -> bytes:
    """The body without a byte order mark, blank lines and the comments of a stream at its start."""
    content = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    while content.startswith(b":"):  # ": OPENROUTER PROCESSING", to keep the connection open
        content = content.partition(b"\n")[2].lstrip()
    return content


def is_stream(content: bytes) -> bool:
    """Whether a body without comments is a stream of events."""
    return content.startswith(_FIRST)


def completion_of(content: bytes) -> dict[str, object]:
    """The completion whose pieces the events of a stream hold; of the first choice alone."""
    whole = _Pieces()
    for event in _events(content):
        whole.add(event)
    return whole.completion()


def _events(content: bytes) -> Iterator[object]:
    """The JSON of all events. An event that is none is left out."""
    held: list[bytes] = []
    for line in [*content.splitlines(), b""]:
        if line.startswith(b"data:"):
            held.append(line[5:].strip())
        elif not line.strip() and held:
            yield from _values(held)
            held = []


def _values(held: list[bytes]) -> Iterator[object]:
    """The value of an event; some servers leave out the blank line between two events."""
    try:
        yield decoded(b"\n".join(held))
    except UNREADABLE:
        for line in held if len(held) > 1 else ():
            try:
                yield decoded(line)
            except UNREADABLE:
                continue


class _Pieces:
    """What the events of a stream have said so far."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._arguments: list[str] = []
        self._positions: list[object] = []
        self._message: object = None
        self._finish: object = None
        self._usage: object = None
        self._error: object = None
        self._chosen = False

    def add(self, event: object) -> None:
        self._usage = member(event, "usage") or self._usage
        if (more := member(event, "x_groq")) is not None:
            self._usage = self._usage or member(more, "usage")
        if (error := member(event, "error")) is not None:
            self._error = error
        for choice in items_of(member(event, "choices")):
            if member(choice, "index") in (None, 0):
                self._add_choice(choice)

    def _add_choice(self, choice: object) -> None:
        self._chosen = True
        self._finish = member(choice, "finish_reason") or self._finish
        self._message = member(choice, "message") or self._message
        self._positions += items_of(member(member(choice, "logprobs"), "content"))
        delta = member(choice, "delta")
        for name in ("content", "reasoning_content", "reasoning", "refusal"):
            if isinstance(piece := member(delta, name), str):
                self._texts.setdefault(name, []).append(piece)
        if isinstance(piece := member(choice, "text"), str):
            self._texts.setdefault("content", []).append(piece)
        for call in items_of(member(delta, "tool_calls")):
            if isinstance(piece := member(member(call, "function"), "arguments"), str):
                self._arguments.append(piece)

    def completion(self) -> dict[str, object]:
        message: dict[str, object] = {name: "".join(said) for name, said in self._texts.items()}
        if self._arguments:
            message["tool_calls"] = [{"function": {"arguments": "".join(self._arguments)}}]
        choice: dict[str, object] = {
            "message": message or self._message or {},
            "finish_reason": self._finish,
        }
        if self._positions:
            choice["logprobs"] = {"content": self._positions}
        found: dict[str, object] = {"choices": [choice] if self._chosen else []}
        found |= {"usage": self._usage, "error": self._error}
        return found
