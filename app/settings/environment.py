"""Checks of the environment that `Settings` is read from."""

import os
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

PREFIX = "UNILLMREC_"
# Variables of commands, docker-compose.public.yml, benchmarks and tests.
_NOT_SETTINGS = ("URL", "API_KEY", "SITE", "BENCH_DATA", "TEST_REDIS_URL")
_SHORTEST_KEY = 24


def check_variables(settings: Collection[str]) -> None:
    """Raises ValueError for a variable `UNILLMREC_…` that is no setting.

    A misspelt variable has no effect: a service without its root key would be open to everybody.
    """
    known = [*(name.upper() for name in settings), *_NOT_SETTINGS]
    for variable in sorted(filter(os.environ.get, os.environ)):
        name = variable.upper().removeprefix(PREFIX)
        if variable.upper().startswith(PREFIX) and name not in known:
            near = get_close_matches(name, known, 1)
            hint = f": did you mean {PREFIX}{near[0]}?" if near else ": docs/settings.md lists them"
            raise ValueError(f"there is no setting {variable}{hint}")


def with_key_from_file(values: dict[str, object]) -> dict[str, object]:
    """`values` with the root key that `admin_key_file` holds, if it is set. Raises ValueError."""
    path = values.get("admin_key_file")
    if not path:
        return values
    if values.get("admin_key"):
        raise ValueError("set UNILLMREC_ADMIN_KEY or UNILLMREC_ADMIN_KEY_FILE, not both")
    try:
        key = Path(str(path)).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(f"UNILLMREC_ADMIN_KEY_FILE: {path} cannot be read: {reason}") from error
    return {**values, "admin_key": key}


def check_key(key: str) -> None:
    """Raises ValueError for a root key that is too short, or that no HTTP header can carry."""
    if not (len(key) >= _SHORTEST_KEY and key.isascii() and key.isprintable()):
        raise ValueError(
            f"must be at least {_SHORTEST_KEY} printable ASCII characters: "
            "`openssl rand -hex 32` makes one"
        )


def endpoint_key(key: str) -> str:
    """A key of an endpoint without blanks and line ends around it, as files end with one.

    Raises ValueError for a key that no HTTP header can carry.
    """
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError(
            "is no key that can be sent: it has a line end or another sign within it "
            "that no header can carry; copy it again"
        )
    return key
