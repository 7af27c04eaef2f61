"""`doctor --endpoint`: every call to the endpoint of the model, before there is any catalogue."""

import json
from itertools import repeat
from pathlib import Path

from tests.app.llm.endpoint.picky import picky_server, refused
from tests.commands import command, model
from tests.servers.hostile import Behaviour, HostileServer


def test_it_shows_what_was_tried_and_learned(tmp_path: Path, hostile_server: HostileServer) -> None:
    hostile_server.play([Behaviour.NO_SCHEMAS, Behaviour.NO_SCHEMAS])
    more = model(hostile_server.base_url, "m")
    done = command(tmp_path / "nothing", "doctor", "--endpoint", "--json", **more)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["ok"], report["error"], report["reply_mode"]) == (True, None, "text")
    tried = [(one["sent"], one["outcome"].split(":")[0]) for one in report["attempts"]]
    assert tried[:3] == [("json_schema picks", "400"), ("json_object", "400"), ("text", "200")]
    assert "of type 'json_schema' is not supported" in report["attempts"][0]["outcome"]
    shown = command(tmp_path / "nothing", "doctor", "--endpoint", **more)
    assert shown.returncode == 0
    assert "reply mode: json_schema" in shown.stdout
    assert not (tmp_path / "nothing").exists()


def test_it_says_what_the_endpoint_says(tmp_path: Path, hostile_server: HostileServer) -> None:
    hostile_server.play(repeat(Behaviour.UNKNOWN_MODEL))
    done = command(tmp_path, "doctor", "--endpoint", **model(hostile_server.base_url, "misspelt"))
    assert done.returncode == 1
    assert "The model `misspelt` does not exist." in " ".join(done.stdout.split())


def test_without_a_model_there_is_nothing_to_ask(tmp_path: Path) -> None:
    done = command(tmp_path, "doctor", "--endpoint")
    assert done.returncode == 1
    assert "UNILLMREC_LLM_MODEL" in done.stderr
    assert command(tmp_path, "doctor", "--endpoint", "--deep").returncode == 2


def test_it_says_what_is_left_out(tmp_path: Path) -> None:
    with picky_server() as server:
        server.rule = lambda body: refused(400, "no seed") if "seed" in body else None
        done = command(tmp_path, "doctor", "--endpoint", "--json", **model(server.base_url, "m"))
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["learned"] == {"m": ["no seed"]}
    assert [one["sent"] for one in report["attempts"][:2]] == [
        "json_schema picks",
        "json_schema picks; no seed",
    ]
