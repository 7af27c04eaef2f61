"""Threads for work that may take long and cannot be stopped.

Answers and writes use the few threads of asyncio: six rebuilds, or uploads to a disk that does not
answer, must not occupy those.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Threads:
    """`count` threads for one kind of work."""

    def __init__(self, name: str, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, name)

    async def run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What `work` returns. A cancelled caller does not wait; the thread goes on."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, partial(work, *args, **kwargs))


JOBS = Threads("jobs", 4)
IMPORTS = Threads("imports", 2)  # each reads a batch of lines at a time
UPLOADS = Threads("uploads", 4)
