"""Users as JSON Lines: what an export writes, and what `events` reads back."""

from collections.abc import AsyncIterator

import msgspec

from app.storage.feedback import Feedback, User

_SECOND = 1_000_000  # microseconds


async def user_lines(feedback: Feedback) -> AsyncIterator[bytes]:
    """Every user as whole lines, some at once. Raises StoreUnavailable."""
    async for page in feedback.users():
        if page:
            yield b"".join(user_line(entry.user_id, entry.user) for entry in page)


def user_line(user_id: str, user: User) -> bytes:
    """A user as a line: the history oldest first, its times in seconds since 1970."""
    return (
        msgspec.json.encode(
            {
                "user_id": user_id,
                "history": [visit.item_id for visit in user.history],
                "timestamps": [visit.at / _SECOND for visit in user.history],
                "types": [visit.type for visit in user.history],
                "profile": user.profile,
                "attributes": user.attributes,
            }
        )
        + b"\n"
    )
