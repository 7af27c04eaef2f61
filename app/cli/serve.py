"""`serve` starts the service; `version` prints the version."""

import asyncio
import logging
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from copy import deepcopy
from enum import StrEnum
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer

from app import __version__
from app.cli.session import JsonOption, err, explained, out, print_json, stop
from app.cli.shutdown import GRACE_S, LAST_S, STARTING_S, end_in_time, exit_after
from app.hosts import is_loopback

if TYPE_CHECKING:
    from app.composition import ServiceTimes
    from app.settings import Settings

_WRONG_CALL = 2
_START_S = 60  # for a worker to answer its parent: imports take 5 s on a busy core
_ADDRESS = 2  # the index of the URL in the arguments of uvicorn's access log


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0 for any.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that serve requests.")] = 1,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Without a root key, listen on an address that other machines can reach, and "
            "answer to any host name.",
        ),
    ] = False,
    log_level: Annotated[LogLevel, typer.Option(help="How much to log.")] = LogLevel.INFO,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log every request.")] = False,
) -> None:
    """Serve the REST API until stopped."""
    import uvicorn

    from app.composition import check_models, shared_store
    from app.http_connection import HttpConnection
    from app.settings import Settings

    signal.signal(signal.SIGTERM, _leave)  # uvicorn repeats the signal after its shutdown
    with explained():
        settings = Settings(insecure=True) if insecure else Settings()
    _check_exposure(host, port, settings)
    os.environ["UNILLMREC_INSECURE"] = str(settings.insecure)  # for workers
    with explained():
        asyncio.run(check_models(settings))
    with explained(), shared_store(settings, lost=_end) as url:
        os.environ["UNILLMREC_REDIS_URL"] = url
        _allow_files(2 * settings.max_connections)
        uvicorn.run(
            "app.cli.serve:application",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            log_level=log_level.value,
            log_config=_logging(log_level),
            access_log=access_log,
            server_header=False,
            ws="none",
            http=HttpConnection,
            limit_concurrency=settings.max_connections,
            timeout_graceful_shutdown=GRACE_S,
            timeout_worker_healthcheck=_START_S,
        )


def _check_exposure(host: str, port: int, settings: "Settings") -> None:
    """Exit when other machines could reach the service and nothing protects it."""
    if settings.admin_key is not None:
        return
    loopback = host == "localhost" or is_loopback(f"[{host}]" if ":" in host else host)
    if not (loopback or settings.insecure):
        stop(
            f"{host} can be reached by others, and there are no keys to keep them out: set "
            "UNILLMREC_ADMIN_KEY to a secret (`openssl rand -hex 32` makes one), listen on "
            "127.0.0.1, or add --insecure if something else guards this service",
            _WRONG_CALL,
        )
    if settings.insecure:
        err.print(f"warning: everybody who can reach {host}:{port} can read and change everything")


def _allow_files(count: int) -> None:
    """Raise the limit of open files, as far as allowed: each connection needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        count = min(count, hard)
    if soft not in (resource.RLIM_INFINITY, hard) and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def application(times: "ServiceTimes | None" = None) -> object:
    """The service. A worker process ends together with its parent.

    Without its parent, a worker would keep the port and answer without a store.
    """
    serving: list[Callable[[], bool]] = []
    end_in_time(lambda: LAST_S if any(is_so() for is_so in serving) else STARTING_S)

    from app.api.dependencies import started
    from app.composition import ServiceTimes
    from app.main import create_app

    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=_follow, args=(parent,), daemon=True).start()
    app = create_app(checked=True, times=times or ServiceTimes())
    serving.append(lambda: started(app))
    return app


def _follow(parent: BaseProcess) -> None:
    parent.join()
    _end()


def _end() -> None:
    """End this process as failed: it has no store."""
    exit_after(LAST_S, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def version(as_json: JsonOption = False) -> None:
    """Print the version."""
    if as_json:
        print_json({"version": __version__})
    else:
        out.print(f"unillmrec {__version__}")


def _leave(number: int, _: object) -> None:
    sys.exit(128 + number if number != signal.SIGTERM else 0)


class RedactKeys(logging.Filter):
    """Removes keys and the queries of URLs from the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        from app.keys import redacted

        if isinstance(record.args, tuple):
            record.args = tuple(redacted(a) if isinstance(a, str) else a for a in record.args)
            if record.name == "uvicorn.access" and len(record.args) > _ADDRESS:
                args = list(record.args)
                args[_ADDRESS] = str(args[_ADDRESS]).partition("?")[0]
                record.args = tuple(args)
        record.msg = redacted(str(record.msg))
        return True


def _logging(level: LogLevel) -> dict[str, object]:
    """uvicorn's logging configuration, extended by ours."""
    from uvicorn.config import LOGGING_CONFIG

    config = deepcopy(LOGGING_CONFIG)
    config["filters"] = {"keys": {"()": f"{__name__}.{RedactKeys.__name__}"}}
    for handler in config["handlers"].values():
        handler["filters"] = ["keys"]
    for name in ("app", "tree"):
        config["loggers"][name] = {
            "handlers": ["default"],
            "level": level.value.upper(),
            "propagate": False,
        }
    return config
