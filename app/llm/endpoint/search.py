"""`Search`: what to change of a call that an endpoint refuses, until it is accepted."""

from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus

import msgspec

from app.llm.endpoint.dialect import GROWTH, Change, Dialect, hinted, hints_at_form
from app.llm.endpoint.refusals import Fault, Refusal

# Tried without a hint, one after the other: all but the limit of tokens, then that too.
_PLAINER = (
    (
        Change.STREAM, Change.SEED, Change.TEMPERATURE, Change.REASONING_EFFORT, Change.BOUNDS,
        Change.ADDITIONAL, Change.STRICT, Change.SYSTEM_ROLE,
    ),
    (Change.MAX_TOKENS,),
    (Change.OUTPUT_LIMIT,),
)  # fmt: skip
_LIMITS = (Change.MAX_TOKENS, Change.OUTPUT_LIMIT)


class Search:
    """The dialects to try for one call, each after the refusal of the one before.

    Changes that the endpoint's words point to come first, one by one; a change after which it says
    the same again is undone. Then everything that can be left out is left out at once, the
    limit of tokens last: at most three calls more.

    `possible` are the changes that make a difference for the call. `known`: the endpoint has
    accepted such a call before, so a refusal that points to nothing is about the prompt. `formed`:
    the call asks for a form of the reply, which is refused by other means. `probe`: the call is a
    tiny question of ours.
    """

    def __init__(
        self,
        dialect: Dialect,
        possible: Sequence[Change],
        *,
        known: bool,
        formed: bool,
        probe: bool = False,
    ) -> None:
        self.began = self.dialect = dialect
        self._has_guessed = False
        self._possible = list(possible)
        self._known = known
        self._formed = formed
        self._probe = probe
        self._hints: list[Change] = []
        self._before: tuple[Dialect, Refusal] | None = None  # of the last change by a hint
        self._plainer = list(_PLAINER)

    def goes_on(self, refusal: Refusal) -> bool:
        """Whether there is another dialect to try, which `dialect` is then."""
        if self._before is not None:
            before, said = self._before
            self._before = None
            if refusal.repeats(said):
                self.dialect = before
        if refusal.fault is Fault.TOO_LONG or set(hinted(refusal.text)) & set(_LIMITS):
            if self.dialect.room > 1:
                room = self.dialect.room // GROWTH
                self.dialect = msgspec.structs.replace(self.dialect, room=room, most_room=room)
                return True
            if refusal.fault is Fault.TOO_LONG:
                return False
        for change in hinted(refusal.text):
            if change in self._possible and change not in self._hints:
                self._hints.append(change)
                self._before = self.dialect, refusal
                self.dialect = self.dialect.changed(change)
                return True
        return self._guesses(refusal)

    def undoings(self) -> list[Callable[[Dialect], Dialect]]:
        """What may be undone after the call was accepted, one after the other.

        A single change that the endpoint's words pointed to is taken at their word.
        """
        made = [change for change in Change if change in self.dialect.changes - self.began.changes]
        if len(made) < 2 and not self._has_guessed:
            return []
        undoings: list[Callable[[Dialect], Dialect]] = [
            partial(Dialect.without, change=change) for change in made if change not in _LIMITS
        ]
        if set(made) & set(_LIMITS):
            undoings.append(_with_max_tokens)
        if Change.OUTPUT_LIMIT in made:
            undoings.append(_with_max_completion_tokens)
        return undoings

    def _guesses(self, refusal: Refusal) -> bool:
        if self._known or (self._formed and hints_at_form(refusal.text)):
            return False
        if refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            # SGLang fails so on a message of the system, vLLM on Gaudi on a seed.
            return self._probe and self._guess(_PLAINER[0])
        while self._plainer:
            if self._guess(self._plainer.pop(0)):
                return True
        return False

    def _guess(self, wanted: Sequence[Change]) -> bool:
        possible = set(self._possible) - self.dialect.changes
        new = [change for change in wanted if change in possible]
        if not new:
            return False
        self._has_guessed = True
        self.dialect = self.dialect.changed(*new)
        return True


def _with_max_tokens(dialect: Dialect) -> Dialect:
    return dialect.without(Change.OUTPUT_LIMIT).without(Change.MAX_TOKENS)


def _with_max_completion_tokens(dialect: Dialect) -> Dialect:
    if Change.OUTPUT_LIMIT not in dialect.changes:
        return dialect
    return dialect.without(Change.OUTPUT_LIMIT).changed(Change.MAX_TOKENS)
