"""README and docs/ say what is so."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from app.settings import Settings
from tests.commands import DEMO, ROOT, command, serving, told
from tests.documents import DOCS, examples, pages

PAGES = [*ROOT.glob("*.md"), *DOCS.glob("*.md")]
README = (ROOT / "README.md").read_text(encoding="utf-8")
URL = "http://127.0.0.1:8000"
# Of bodies that are right, for what is not there, or not without keys.
FINE = (200, 201, 202, 204, 404, 409)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with the bundled catalogue."""
    with serving(tmp_path_factory.mktemp("documents") / "data") as (url, _):
        told(command(ROOT, "import", str(DEMO), "--url", url, "--json"))
        yield url


@pytest.mark.parametrize("name", pages())
def test_pages_that_are_made_from_the_code_are_up_to_date(name):
    written = (DOCS / name).read_text(encoding="utf-8")
    assert written == pages()[name], "run: .venv/bin/python -m tests.documents"


def test_every_setting_says_what_it_does():
    for name, field in Settings.model_fields.items():
        assert field.description, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        aim = page.parent / file if file else page
        assert aim.exists(), target
        if anchor:
            assert anchor in anchors(aim), target


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_targets_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for name in set(re.findall(r"(?:^|`|/)unillmrec ([a-z]+)\b", text, re.MULTILINE)):
        assert command(ROOT, name, "--help").returncode == 0, name


def test_the_recipes_of_the_readme_work(url):
    block = re.search(r"```bash\n(.*?)```", README, re.DOTALL)
    assert block is not None
    script = block[1].replace(".venv/bin/unillmrec", f"{sys.executable} -m app").replace(URL, url)
    marked = re.sub(r"^# ", "echo; echo == ", script, flags=re.MULTILINE)
    run = ["bash", "-euo", "pipefail", "-c", marked]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = (part.partition("\n") for part in done.stdout.split("== ")[1:])
    answers = {title: documents(said) for title, _, said in parts}
    assert len(answers) == 11
    for title, said in answers.items():
        recommended = [answer for answer in said if "items" in answer]
        assert all(answer["items"] for answer in recommended), title
        assert recommended or title[0] not in "123456" or title.startswith("10"), title


def documents(text: str) -> list[dict]:
    """The JSON objects that several answers have left, one after the other."""
    found, at = [], text.find("{")
    while at >= 0:
        value, end = json.JSONDecoder().raw_decode(text, at)
        found.append(value)
        at = text.find("{", end)
    return found


@pytest.mark.parametrize(("method", "path", "kind", "body"), [*examples()])
def test_examples_of_bodies_are_accepted(url, method, path, kind, body):
    known = {"catalog": "default", "item_id": "a", "user_id": "u", "node_id": "0", "key_id": "k"}
    reply = httpx2.request(
        method,
        url + path.format(**known),
        content=json.dumps(body),
        headers={"Content-Type": kind},
        timeout=60,
    )
    assert reply.status_code in FINE, reply.text
