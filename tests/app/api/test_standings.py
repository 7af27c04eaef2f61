"""A weak model behind a running service: answers, metrics and `doctor` say that it is not asked."""

import asyncio
import time
from pathlib import Path

import httpx2

from app.cli.check import Check
from app.cli.standing_check import standing_check
from app.composition import services
from app.settings import Settings
from tests.app.api.modelled import CATALOG, with_model
from tests.app.api.support import served
from tests.app.recommend.with_model.support import sensible
from tests.servers.hostile import HostileServer
from tree.item import Item

_WAIT_S = 60


def test_a_weak_model_is_found_out_while_requests_are_answered(
    tmp_path: Path, embedded_url: str, hostile_server: HostileServer, demo_items: list[Item]
):
    hostile_server.content = sensible  # it takes the first places
    settings = with_model(tmp_path, embedded_url, hostile_server.base_url, llm_examination=True)
    request = {"history": [{"item_id": "book-dune"}], "effort": "economy", "limit": 5}
    with served(settings) as url, httpx2.Client(base_url=url, timeout=30) as client:
        upserts = [item.model_dump(mode="json", exclude_defaults=True) for item in demo_items]
        assert client.post(f"{CATALOG}/items:batch", json={"upserts": upserts}).is_success
        answer = client.post(f"{CATALOG}/recommend", json=request).json()
        assert answer["usage"]["calls"] == 1, "until then it has its whole weight"
        deadline = time.monotonic() + _WAIT_S
        while not answer["warnings"]:
            assert time.monotonic() < deadline, "it is never found out"
            answer = client.post(f"{CATALOG}/recommend", json=request).json()
        assert [warning["code"] for warning in answer["warnings"]] == ["llm_weak"]
        assert answer["usage"]["calls"] == 0
        assert not answer["degraded"]
        assert len(answer["items"]) == 5
        while (check := asyncio.run(_check(settings))).status == "ok":  # it has not ended yet
            assert time.monotonic() < deadline, "the result is never stored"
        assert "does not rank items" in check.finding
        assert "UNILLMREC_LLM_EXAMINATION" in check.advice
        [line] = [
            line
            for line in client.get("/metrics").text.splitlines()
            if line.startswith("unillmrec_llm_standing{")
        ]
        assert 'catalog="default"' in line
        assert line.endswith(" 0.0")


async def _check(settings: Settings) -> Check:
    """What `doctor` says of the model."""
    async with services(settings) as parts:
        catalog = await parts.catalogs.get("default")
        [check] = [check async for check in standing_check(catalog)]
        return check
