"""Keys over two processes of a service, and on the command line."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from secrets import token_hex
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from app.cli.serve import RedactKeys
from app.settings import Settings
from tests.commands import apart, command, serving, told

ROOT = "root-" + "r" * 32
PATIENCE_S = 60
CATALOG = "/v1/catalogs/default"


@pytest.fixture(scope="module")
def store(embedded_url: str) -> dict[str, str]:
    """Settings of a store that both share."""
    return {
        "UNILLMREC_REDIS_URL": embedded_url,
        "UNILLMREC_KEY_PREFIX": f"test-{token_hex(6)}",
    }


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory, store: dict[str, str]) -> Iterator[list[str]]:
    """Two processes on one store."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("replicas")
        secret = folder / "root.key"
        secret.write_text(f"{ROOT}\n")
        own = [{"UNILLMREC_ADMIN_KEY": ROOT}, {"UNILLMREC_ADMIN_KEY_FILE": str(secret)}]
        yield [
            stack.enter_context(serving(folder / str(at), **store, **key))[0]
            for at, key in enumerate(own)
        ]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def created(url: str, **more: Any) -> dict:
    body = {"name": "test", "scopes": ["ingest"], "catalogs": ["default"], **more}
    reply = httpx2.post(f"{url}/v1/keys", json=body, headers=bearer(ROOT), timeout=PATIENCE_S)
    assert reply.status_code == 201, reply.text
    return reply.json()


def test_a_key_counts_everywhere_at_once_and_no_longer_than_a_second(urls):
    here, there = urls
    new = created(here)
    with httpx2.Client(base_url=there, headers=bearer(new["key"]), timeout=PATIENCE_S) as client:
        assert client.get(CATALOG).status_code == 200
        revoked = httpx2.delete(f"{here}/v1/keys/{new['id']}", headers=bearer(ROOT))
        assert revoked.status_code == 204
        told_at = time.monotonic()
        while client.get(CATALOG).status_code == 200:
            assert time.monotonic() - told_at < 1.0, "a revoked key is accepted"
        assert client.get(CATALOG).status_code == 401


def test_a_rate_is_one_over_all_processes(urls):
    key = created(urls[0], rate_per_minute=30)["key"]
    assert httpx2.get(urls[1] + CATALOG, headers=bearer(key)).status_code == 200  # known there
    with ExitStack() as stack, ThreadPoolExecutor(8) as threads:
        clients = [
            stack.enter_context(
                httpx2.Client(base_url=url, headers=bearer(key), timeout=PATIENCE_S)
            )
            for url in urls
        ]
        sent = [threads.submit(clients[n % 2].get, CATALOG) for n in range(80)]
        statuses = [one.result().status_code for one in sent]
    assert (statuses.count(200), statuses.count(429)) == (29, 51)


def test_commands_make_list_and_revoke_keys(urls, store, tmp_path):
    folder = tmp_path / "data"
    secret = tmp_path / "root.key"
    secret.write_text(f"{ROOT}\n")
    wanted = ("--scope", "ingest", "--catalog", "default", "--days", "1", "--json")
    there = ("--url", urls[1])
    by_file = (*there, "--key-file", str(secret))
    over_http = told(command(folder, "keys", "create", "a job", *wanted, *by_file))
    straight = told(command(folder, "keys", "create", "a job", *wanted, **store))
    for new in (over_http, straight):
        reply = httpx2.get(urls[0] + CATALOG, headers=bearer(new["key"]), timeout=PATIENCE_S)
        assert reply.status_code == 200
    by_variable = told(
        command(folder, "keys", "list", "--json", *there, UNILLMREC_API_KEY=ROOT)
    )  # fmt: skip
    assert by_variable == told(command(folder, "keys", "list", "--json", **store))
    assert {over_http["id"], straight["id"]} <= {key["id"] for key in by_variable["keys"]}
    narrow = apart(folder, "keys", "list", COLUMNS="80", **store).stdout
    assert over_http["id"] in narrow  # as `keys revoke` wants it
    assert "…" not in narrow

    lines = tmp_path / "items.jsonl"
    lines.write_text('{"id": "a", "title": "A"}\n')
    job = told(
        command(
            folder, "import", str(lines), *there, "--json", UNILLMREC_API_KEY=straight["key"]
        )
    )  # fmt: skip
    assert job["state"] == "succeeded"
    refused = command(folder, "import", str(lines), *there)
    assert refused.returncode == 1
    assert "send a key" in refused.stderr
    assert "UNILLMREC_API_KEY" in refused.stderr

    revoked = command(folder, "keys", "revoke", over_http["id"], *by_file)
    assert revoked.returncode == 0
    assert told(command(folder, "keys", "revoke", straight["key"], "--json", **store)) == {
        "revoked": straight["id"]
    }
    audit = httpx2.get(f"{urls[0]}/v1/audit", headers=bearer(ROOT)).json()["entries"]
    by = {(entry["act"], entry["key_name"]) for entry in audit}
    assert {("create_key", "a command on the store"), ("revoke_key", "the root key")} <= by


def test_no_line_of_a_log_holds_a_key(urls):
    key = created(urls[0])["key"]
    access = ("127.0.0.1:1", "GET", f"/v1/catalogs?api_key={ROOT}", "1.1", 400)
    for name, text, arguments in (
        ("uvicorn.access", '%s - "%s %s HTTP/%s" %d', access),
        ("app.api", "the key %s", (key,)),
        ("app.api", f"the key {key}", ()),
        ("app.api", f"/v1/keys/{key}", None),
    ):
        record = logging.LogRecord(name, logging.INFO, "", 1, text, arguments, None)
        assert RedactKeys().filter(record)
        said = record.getMessage()
        assert key[17:] not in said
        assert ROOT not in said


def test_a_root_key_that_anybody_could_guess_is_refused(tmp_path):
    empty = tmp_path / "empty.key"
    empty.write_text("\n")
    for bad in (
        {"admin_key": "short-secret"},
        {"admin_key": "with a space".ljust(30, "\n")},
        {"admin_key_file": str(tmp_path / "nowhere.key")},
        {"admin_key_file": str(empty)},
        {"admin_key_file": str(empty), "admin_key": ROOT},
    ):
        with pytest.raises(ValidationError) as refused:
            Settings.model_validate(bad)
        assert not [one for one in ("short-secret", ROOT) if one in str(refused.value)]
    told = apart(tmp_path / "data", "serve", UNILLMREC_ADMIN_KEY="short-secret")
    assert told.returncode == 1
    assert "at least 24" in told.stderr
    assert "short-secret" not in told.stderr
