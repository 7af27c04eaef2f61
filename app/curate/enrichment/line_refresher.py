"""`LineRefresher`: a model describes new and changed items, a little later and many at once."""

import logging
import time
from collections.abc import Sequence
from itertools import islice
from secrets import token_hex

from app.budget import Budget
from app.curate.enrichment.line_run import LineRun, SetLines
from app.curate.enrichment.line_scan import LineScan
from app.curate.enrichment.line_writer import LineWriter
from app.curate.owner_settings import OwnerSettings
from app.jobs import JobReport
from app.llm import ModelRejected
from app.settings import Settings
from tree.edits import Edit, PutItem
from tree.errors import EmbedderUnavailable, StoreUnavailable
from tree.item_line import LINE_CODES
from tree.store.protocol import ReadableStore
from tree.worker import Worker

logger = logging.getLogger(__name__)

_MOST = 4_096  # items that wait; a later scan finds further ones
_AT_ONCE = 240
_CALLS = 2  # at once: users' calls and jobs come first
_DAY_S, _HOUR_S = 86_400.0, 3_600.0
_MANY = 10**12
_NO_LINE = LINE_CODES[None]


class LineRefresher:
    """Writes the lines of items after commits of this process, where the owner wants that.

    Items that wait when the process ends, and those of other writers, are found by a scan at the
    start and once a day.
    """

    def __init__(
        self,
        store: ReadableStore,
        writer: LineWriter,
        set_lines: SetLines,
        settings: Settings,
        owner: OwnerSettings,
        *,
        delay_s: float = 10.0,
        pause_s: float = 30.0,
    ) -> None:
        """`delay_s`: how long to wait for more items; `pause_s`: after an outage."""
        self._store = store
        self._writer = writer
        self._set_lines = set_lines
        self._settings = settings
        self._owner = owner
        self._delay_s = delay_s
        self._pause_s = pause_s
        self._holder = f"process {token_hex(8)}"
        self._scan: LineScan | None = None
        self._scan_at = 0.0  # by time.monotonic()
        self._worker = Worker[str](
            "lines of items",
            self._work,
            most=_MOST,
            pick=lambda waiting: islice(waiting, _AT_ONCE),
            window_s=delay_s,
        )

    @property
    def waiting(self) -> int:
        """Items that wait for a line."""
        return len(self._worker)

    def note(self, edits: Sequence[Edit]) -> None:
        """Write lines later for the items that a commit has put without one."""
        if self._writer.configured:
            self._worker.put(
                edit.id
                for edit in edits
                if isinstance(edit, PutItem) and edit.line == _NO_LINE and not edit.hidden
            )

    async def housekeep(self) -> None:
        """Look for items that nobody has noted, some thousands at a time; called now and then."""
        if not self._writer.configured or self.waiting or time.monotonic() < self._scan_at:
            return
        if not (await self._owner.enrichment()).enabled:
            return
        self._scan = self._scan or LineScan("missing")
        ids, _ = await self._scan.next_ids(await self._store.load(), _MOST // 2)
        self._worker.put(ids)
        if not ids:
            self._scan, self._scan_at = None, time.monotonic() + _DAY_S

    async def settled(self) -> None:
        """Wait until no item waits for a line, also through an outage."""
        await self._worker.settled()

    async def aclose(self) -> None:
        """Stop; the next start finds the items that wait."""
        await self._worker.aclose()

    async def _work(self, ids: Sequence[str]) -> None:
        options = await self._owner.enrichment()
        if not options.enabled:
            self._worker.clear()
            return
        day_usd = options.max_cost_usd_per_day
        if day_usd is None:
            day_usd = self._settings.llm_enrich_day_usd
        shared = self._owner.day_budget
        task = self._writer.task(
            self._holder,
            self._owner.language,
            options.guidance,
            Budget(_MANY, _MANY, day_usd),
            shared_budget=shared(day_usd) if shared else None,
            images=options.images,
        )
        run = LineRun(
            self._store,
            self._writer,
            self._set_lines,
            task,
            JobReport.unwatched(),
            at_once=_CALLS,
            patience_s=0.0,
        )
        try:
            await run.of(ids)
        except ModelRejected as error:
            logger.error("items stay without lines: %s", error)
            self._worker.clear()
            return
        except (StoreUnavailable, EmbedderUnavailable):
            self._worker.put(ids)
            await self._worker.rest(self._pause_s)
            return
        await self._put_back(ids, run)

    async def _put_back(self, ids: Sequence[str], run: LineRun) -> None:
        """What is left waits again; after the budget of a day, for a scan in an hour."""
        match run.result.stopped:
            case "budget" | "invalid" | "no_text":
                self._worker.clear()
                self._scan_at = time.monotonic() + _HOUR_S
            case "unavailable":
                self._worker.put(ids)
                await self._worker.rest(self._pause_s)
            case None if run.later:
                self._worker.put(run.later)
                await self._worker.rest(self._pause_s)
