"""`serve` and `version`."""

import asyncio
import multiprocessing
import os
import signal
import sys
from copy import deepcopy
from enum import StrEnum
from ipaddress import ip_address
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Annotated

import typer

from app import __version__
from app.cli.session import JsonOption, err, explained, out, print_json, stop

_WRONG_CALL = 2
_GRACE_S = 10


class LogLevel(StrEnum):
    """How much is told."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0 for any.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that answer.")] = 1,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen on an address that others can reach.")
    ] = False,
    log_level: Annotated[LogLevel, typer.Option(help="How much to log.")] = LogLevel.INFO,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log every request.")] = False,
) -> None:
    """Serve the REST interface until stopped."""
    if not _is_loopback(host):
        if not insecure:
            stop(
                f"{host} can be reached by others, and there are no keys to keep them out: listen "
                "on 127.0.0.1, or add --insecure if something else guards this service",
                _WRONG_CALL,
            )
        err.print(f"warning: whoever reaches {host}:{port} can read and change everything")
    import uvicorn

    from app.services import check_models, shared_store
    from app.settings import Settings

    signal.signal(signal.SIGTERM, _leave)  # uvicorn repeats the signal when it has closed
    settings = Settings()
    with explained():
        asyncio.run(check_models(settings))
    with explained(), shared_store(settings) as url:
        os.environ["UNILLMREC_REDIS_URL"] = url
        uvicorn.run(
            "app.cli.running:application",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            log_level=log_level.value,
            log_config=_logging(log_level),
            access_log=access_log,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=_GRACE_S,
        )


def application() -> object:
    """The service; among several workers, one that ends with the process that started it.

    Left alone, a worker would keep the port and answer without a store.
    """
    from app.main import create_app

    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=_follow, args=(parent,), daemon=True).start()
    return create_app(checked=True)


def _follow(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def version(as_json: JsonOption = False) -> None:
    """Print the version."""
    if as_json:
        print_json({"version": __version__})
    else:
        out.print(f"unillmrec {__version__}")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _leave(number: int, _: object) -> None:
    sys.exit(128 + number if number != signal.SIGTERM else 0)


def _logging(level: LogLevel) -> dict[str, object]:
    """uvicorn's own configuration, with ours beside it."""
    from uvicorn.config import LOGGING_CONFIG

    config = deepcopy(LOGGING_CONFIG)
    for name in ("app", "tree"):
        config["loggers"][name] = {
            "handlers": ["default"],
            "level": level.value.upper(),
            "propagate": False,
        }
    return config
