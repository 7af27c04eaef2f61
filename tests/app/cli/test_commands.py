"""The command line, as processes of their own over a store of their own."""

import gzip
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import httpx2
import pytest
import redis
from pydantic import ValidationError

import app
from app.settings import Settings
from tests.commands import (
    DEMO,
    DEMO_ITEMS,
    WAIT_S,
    apart,
    command,
    environment,
    model,
    serving,
    told,
)
from tests.servers import llama
from tests.servers.hostile import Behaviour
from tree.redis.data_folder import running_url


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that holds the bundled catalogue."""
    folder = tmp_path_factory.mktemp("cli") / "data"
    job = told(command(folder, "import", str(DEMO), "--json"))
    assert job["state"] == "succeeded"
    assert (job["result"]["accepted"], job["result"]["rejected"]) == (DEMO_ITEMS, 0)
    assert DEMO.exists()
    assert list((folder / "uploads").iterdir()) == []
    return folder


def test_recommend_prints_a_table_or_json(folder):
    done = command(folder, "recommend", "--history", "book-dune,nowhere", "--limit", "3")
    assert done.returncode == 0
    assert "Not in the catalogue: nowhere" in done.stdout
    assert "because of your interest in" in done.stdout

    arguments = ("--profile", "slow science fiction", "--domain", "films", "--json")
    answer = told(command(folder, "recommend", *arguments))
    assert len(answer["items"]) == 10
    assert {item["path"][0] for item in answer["items"]} == {"Films"}


def test_tree_draws_or_prints_the_tree(folder):
    drawn = command(folder, "tree", "--depth", "1").stdout
    assert f"{DEMO_ITEMS} items in" in drawn
    assert "├── " in drawn
    shown = told(command(folder, "tree", "--depth", "0", "--json"))
    assert shown["statistics"]["items"] == shown["tree"]["count"] == DEMO_ITEMS
    assert shown["tree"]["children"] == []
    graphml = command(folder, "tree", "--format", "graphml", "--depth", "1").stdout
    assert graphml.startswith("<graphml")
    assert command(folder, "tree", "--root", "99999").returncode == 1


def test_what_is_exported_can_be_imported(folder, tmp_path):
    whole = command(folder, "export").stdout
    assert len(whole.splitlines()) == DEMO_ITEMS
    path = tmp_path / "out.jsonl"
    assert told(command(folder, "export", "--output", str(path), "--json"))["items"] == DEMO_ITEMS
    assert path.read_text(encoding="utf-8") == whole
    assert list(tmp_path.iterdir()) == [path]
    zipped = tmp_path / "out.jsonl.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    job = told(command(tmp_path / "other", "import", str(zipped), "--json"))
    assert job["result"]["items"] == DEMO_ITEMS


def test_bad_lines_are_shown(folder, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"id": "a", "title": "[A]"}\nnonsense\n{"id": "b"}\n')
    checked = command(folder, "import", str(path), "--dry-run")
    assert checked.returncode == 0
    assert "nothing imported: 1 lines are fine, 2 are not" in checked.stdout
    assert "title: Field required" in checked.stdout
    refused = command(folder, "import", str(path), "--on-error", "abort")
    assert refused.returncode == 1
    assert "2 lines are not acceptable, so nothing was imported" in refused.stderr


def test_an_old_version_is_put_back(folder):
    for _ in range(2):
        assert command(folder, "rebuild").returncode == 0
    newest, older = told(command(folder, "versions", "--json"))["versions"]
    assert newest["version"] > older["version"]
    done = command(folder, "activate", str(older["version"]))
    assert f"version {older['version']} is in use again" in done.stdout
    table = command(folder, "versions").stdout
    assert f"version {older['version']} again" in table
    refused = command(folder, "activate", "4711")
    named = r"version 4711 is not kept, but versions (\d+, )*\d+ and \d+ are"
    assert refused.returncode == 1
    assert re.search(named, " ".join(refused.stderr.split()))


def test_rebuild(folder):
    job = told(command(folder, "rebuild", "--json"))
    assert (job["state"], job["result"]["items"]) == ("succeeded", DEMO_ITEMS)
    assert command(folder, "rebuild", "--mode", "subtree").returncode == 2
    again = ("rebuild", "--mode", "relabel", "--embedder", "hybrid")
    assert command(folder, *again).returncode == 2
    unknown = command(folder, "rebuild", "--embedder", "openai:none")
    assert unknown.returncode == 1
    said = " ".join(unknown.stderr.split())
    assert "unknown embedder 'openai:none': this service has 'hybrid' and 'lexical'" in said
    assert "set UNILLMREC_EMBEDDER=openai:none" in said
    tried = command(folder, "rebuild", "--dry-run").stdout
    assert "nothing was published" in tried
    assert f": {DEMO_ITEMS} items in " in tried
    assert not re.search("True|None|[{}\\[\\]_]", tried)


def test_doctor_finds_nothing_wrong(folder):
    report = told(command(folder, "doctor", "--json"))
    assert report["ok"]
    assert {check["status"] for check in report["checks"]} == {"ok"}
    names = [check["name"] for check in report["checks"]]
    assert "no flaws" in command(folder, "doctor").stdout
    assert names == [
        "data folder", "store", "persistence", "memory", "keys", "catalogue default", "model",
        "embedder",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "wrong", "advice"),
    [
        (
            {
                "UNILLMREC_LLM_MODEL": "m",
                "UNILLMREC_LLM_API_KEY": "k",
                "UNILLMREC_LLM_BASE_URL": "http://127.0.0.1:9/v1",
            },
            "model",
            "check UNILLMREC_LLM_BASE_URL",
        ),
        ({"UNILLMREC_REDIS_URL": "redis://127.0.0.1:9"}, "store", "check that the server runs"),
        ({"UNILLMREC_DATA_DIR": "/proc/nowhere"}, "data folder", "UNILLMREC_DATA_DIR"),
    ],
)
def test_doctor_says_what_is_wrong(folder, more, wrong, advice):
    done = command(folder, "doctor", "--json", **more)
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert not report["ok"]
    failed = {check["name"]: check for check in report["checks"] if check["status"] == "fail"}
    assert advice in failed[wrong]["finding"] + failed[wrong]["advice"]


def test_doctor_says_that_the_model_answers(folder, llama_url):
    report = told(command(folder, "doctor", "--json", **model(llama_url, llama.MODEL)))
    (check,) = [check for check in report["checks"] if check["name"] == "model"]
    assert (check["status"], check["advice"]) == ("ok", "")
    assert check["finding"] == f"{llama.MODEL} answers in the reply mode json_schema"


def test_doctor_asks_the_embedder_of_new_catalogues_and_those_of_old_ones(folder, hostile_server):
    more = {
        "UNILLMREC_EMBEDDER": "openai:m",
        "UNILLMREC_EMBEDDER_BASE_URL": hostile_server.base_url,
    }
    checks = {
        one["name"]: one for one in told(command(folder, "doctor", "--json", **more))["checks"]
    }
    assert checks["embedder"]["status"] == "ok"
    assert checks["embedder"]["finding"].startswith("openai:m works; UNILLMREC_LLM_PRICES has no ")
    old = checks["catalogue default, embedder"]
    assert old["finding"].startswith("hybrid; new catalogues get openai:m. To change it: ")
    assert old["finding"].endswith("unillmrec rebuild --catalog default --embedder openai:m")
    hostile_server.play([Behaviour.UNAUTHORIZED])
    done = command(folder, "doctor", "--json", **more)
    assert done.returncode == 1
    (failed,) = [one for one in json.loads(done.stdout)["checks"] if one["status"] == "fail"]
    assert failed["name"] == "embedder"
    assert "401" in failed["finding"]
    assert "check UNILLMREC_EMBEDDER" in failed["advice"]


def test_doctor_says_what_a_catalogue_does_without_its_embedder(tmp_path, hostile_server):
    more = {
        "UNILLMREC_EMBEDDER": "openai:m",
        "UNILLMREC_EMBEDDER_BASE_URL": hostile_server.base_url,
    }
    items = "".join(f'{{"id": "i{n}", "title": "Thing {n}"}}\n' for n in range(64))
    (tmp_path / "items.jsonl").write_text(items, encoding="utf-8")
    done = command(tmp_path, "import", str(tmp_path / "items.jsonl"), **more)
    assert done.returncode == 0, done.stderr
    told(command(tmp_path, "doctor", "--json", **more))
    done = command(tmp_path, "doctor", "--json")
    assert done.returncode == 1
    (failed,) = [one for one in json.loads(done.stdout)["checks"] if one["status"] == "fail"]
    assert failed["name"] == "catalogue default, embedder"
    assert "UNILLMREC_EMBEDDER_BASE_URL" in failed["finding"]
    assert "recommendations ignore texts" in failed["advice"]


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (Behaviour.UNAUTHORIZED, "401 (invalid_api_key)"),
        (Behaviour.UNKNOWN_MODEL, "404 (model_not_found)"),
    ],
)
def test_doctor_says_what_the_endpoint_rejects(folder, hostile_server, behaviour, said):
    hostile_server.play(repeat(behaviour))
    more = model(hostile_server.base_url, "misspelt")
    done = command(folder, "doctor", "--json", **more)
    assert done.returncode == 1
    (failed,) = [one for one in json.loads(done.stdout)["checks"] if one["status"] == "fail"]
    assert failed["name"] == "model"
    assert said in failed["finding"]
    assert "check UNILLMREC_LLM_BASE_URL, _API_KEY and _MODEL" in failed["advice"]


def test_a_rejected_key_is_no_answer(folder, hostile_server):
    hostile_server.play(repeat(Behaviour.UNAUTHORIZED))
    more = model(hostile_server.base_url, "m")
    done = command(folder, "recommend", "--history", "book-dune", **more)
    assert (done.returncode, done.stdout) == (1, "")
    assert "401 (invalid_api_key)" in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_rejected_key_stops_the_service_with_a_sentence(folder, hostile_server, workers):
    hostile_server.play(repeat(Behaviour.UNAUTHORIZED))
    more = model(hostile_server.base_url, "m")
    done = apart(folder, "serve", "--port", "0", "--workers", workers, **more)
    assert done.returncode == 1
    assert "401 (invalid_api_key): Incorrect API key provided" in done.stderr
    assert "check the key" in done.stderr
    assert "Traceback" not in done.stderr


KEY = ("keys", "create", "name", "--scope", "events", "--catalog", "X Y")


@pytest.mark.parametrize(
    ("arguments", "more", "code", "reason"),
    [
        (("serve", "--host", "0.0.0.0"), {}, 2, "add --insecure"),
        (("serve", "--host", "example.org"), {}, 2, "add --insecure"),
        (("recommend", "--limit", "0"), {}, 2, "--limit"),
        (("recommend", "--catalog", "nowhere"), {}, 1, "there is no catalogue 'nowhere'"),
        (("recommend", "--profile", ""), {}, 1, "profile"),
        (("recommend", "--task", "search"), {}, 1, "a search needs an instruction"),
        (("import", "nowhere.jsonl"), {}, 2, "nowhere.jsonl"),
        (("frobnicate",), {}, 2, "frobnicate"),
        (("tree",), {"UNILLMREC_HISTORY_DECAY": "7"}, 1, "UNILLMREC_HISTORY_DECAY: "),
        (("tree",), {"UNILLMREC_EMBEDDER": "word2vec"}, 1, "UNILLMREC_EMBEDDER: it does not have"),
        (("tree",), {"UNILLMREC_LLM_PRICES": "x"}, 1, "UNILLMREC_LLM_PRICES: it is not JSON"),
        (("tree",), {"UNILLMREC_DIVERSTY": "0"}, 1, "did you mean UNILLMREC_DIVERSITY?"),
        (KEY, {}, 1, "'X Y' cannot name a catalogue"),
        (("tree",), {"UNILLMREC_REDIS_URL": "redis://127.0.0.1:9"}, 1, "cannot be reached"),
        (("tree",), {"UNILLMREC_REDIS_URL": "nonsense"}, 1, "not the URL of a store"),
        (("import", str(DEMO)), {"UNILLMREC_DATA_DIR": "/proc/nowhere"}, 1, "cannot be written"),
        (("import", str(DEMO), "--url", "http://127.0.0.1:9"), {}, 1, "does not answer"),
    ],
)
def test_what_goes_wrong_is_one_sentence_on_stderr(folder, arguments, more, code, reason):
    done = (apart if "serve" in arguments else command)(folder, *arguments, **more)
    assert done.returncode == code, done.stderr
    assert reason in done.stderr
    assert done.stdout == ""


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("UNILLMREC_LLM_BASE_URL", f"http://user:{SECRET}@host/v1"),
        ("UNILLMREC_EMBEDDER_BASE_URL", f"http://user:{SECRET}@host/v1"),
        ("UNILLMREC_REDIS_URL", f"redis://:{SECRET}#more@host:6379"),
        ("UNILLMREC_REDIS_URL", f"redis://user:{SECRET}@127.0.0.1:9"),
        ("UNILLMREC_LLM_PRICES", f"{{'{SECRET}'"),
        ("UNILLMREC_LLM_PRICES", f'{{"m": {{"input": "{SECRET}", "output": 1}}}}'),
    ],
)
def test_no_message_tells_what_a_setting_holds(folder, name, value):
    done = command(folder, "tree", **{name: value})
    assert done.returncode == 1
    assert done.stderr.startswith("unillmrec: ")
    assert SECRET not in done.stdout + done.stderr


def test_settings_that_are_refused_elsewhere_tell_nothing_either():
    address = f"http://user:{SECRET}@host/v1"
    with pytest.raises(ValidationError) as refusal:
        Settings(llm_base_url=address, embedder_base_url=address, llm_timeout_s=SECRET)
    assert SECRET not in str(refusal.value)


def test_version(folder):
    assert command(folder, "version").stdout == f"unillmrec {app.__version__}\n"
    assert told(command(folder, "version", "--json")) == {"version": app.__version__}


def test_commands_work_beside_a_service_and_through_it(tmp_path):
    folder = tmp_path / "data"
    with serving(folder) as (url, process):
        through = told(command(folder, "import", str(DEMO), "--url", url, "--json"))
        assert through["result"]["accepted"] == DEMO_ITEMS
        unknown = command(folder, "import", str(DEMO), "--url", url, "--catalog", "nowhere")
        assert unknown.returncode == 1
        assert "there is no catalogue 'nowhere'" in unknown.stderr

        beside = tmp_path / "one.jsonl"
        beside.write_text('{"id": "beside", "title": "A book that came in beside"}\n')
        told(command(folder, "import", str(beside), "--json"))
        assert httpx2.get(f"{url}/v1/catalogs/default/items/beside").status_code == 200
        assert apart(folder, "serve", "--port", "0").returncode == 1

        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    assert running_url(folder) is None
    assert told(command(folder, "tree", "--json"))["statistics"]["items"] == DEMO_ITEMS + 1


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children can be interrupted, also where a shell started this suite in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_import_stops_cleanly(tmp_path, interruptible):
    source = tmp_path / "pipe.jsonl"
    rows = (f'{{"id": "{number}", "title": "Item {number}"}}\n' for number in range(150_000))
    source.write_text("".join(rows))
    folder = tmp_path / "data"
    with subprocess.Popen(
        [sys.executable, "-m", "app", "import", str(source)],
        env=environment(folder),
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        uploads = folder / "uploads"
        deadline = time.monotonic() + WAIT_S
        while not (uploads.exists() and list(uploads.iterdir())):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, errors
    assert "stopped" in errors
    assert "Traceback" not in errors
    assert list(uploads.iterdir()) == []
    assert running_url(folder) is None


def test_an_interrupted_import_says_what_is_stored_and_how_to_go_on(tmp_path, interruptible):
    source = tmp_path / "items.jsonl"
    rows = (f'{{"id": "{number}", "title": "Item {number}"}}\n' for number in range(150_000))
    source.write_text("".join(rows))
    folder = tmp_path / "data"
    with subprocess.Popen(
        [sys.executable, "-m", "app", "import", str(source)],
        env=environment(folder),
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        deadline = time.monotonic() + WAIT_S
        while (url := running_url(folder)) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with redis.Redis.from_url(url) as store:
            while not any(map(store.hlen, store.scan_iter("unillmrec:{default~*}:staged"))):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, errors
    said = re.search(r"stopped; ([\d,]+) lines are stored", errors)
    assert said, errors
    assert "`unillmrec serve` or `unillmrec rebuild`" in errors
    assert "import the file again" in errors
    stored = int(said[1].replace(",", ""))
    assert 0 < stored <= 150_000
    assert told(command(folder, "rebuild", "--json"))["result"]["items"] == stored
