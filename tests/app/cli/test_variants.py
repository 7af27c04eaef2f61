"""`unillmrec variants`, over a store in which two variants were tried."""

import asyncio
from random import Random

from app.attribution import Answered
from app.catalogs import CatalogSettings
from app.composition import services
from app.event_types import EventRules
from app.settings import Settings
from app.storage.feedback import Event
from app.variants import Variant
from tests.commands import command, told

LISTS = 1_500


async def tried(folder) -> None:
    """Lists of many users; those of `bold` are clicked twice as often."""
    chance = Random(1)
    async with services(Settings(data_dir=folder)) as parts:
        found = await parts.catalogs.get("default")
        bold = CatalogSettings(variants={"bold": Variant(share=0.25)}).variants
        await parts.catalogs.change(
            found, lambda settings: settings.model_copy(update={"variants": bold})
        )
        for number in range(LISTS):
            variant = "bold" if number % 4 == 0 else "default"
            await found.attributor.keep(
                Answered(
                    list_id=f"r{number}",
                    user_id=f"u{number}",
                    variant=variant,
                    strategy="embedded",
                    effort="-",
                    scenario=None,
                    degraded=False,
                    tree_version=1,
                    items=["a"],
                )
            )
            if chance.random() < (0.6 if variant == "bold" else 0.2):
                event = Event(f"e{number}", "u", "a", 1, "click", None, f"r{number}")
                assert await found.attributor.attribute([event], EventRules()) == ["attributed"]


def test_variants_are_shown_beside_the_control(tmp_path):
    folder = tmp_path / "data"
    asyncio.run(tried(folder))
    found = told(command(folder, "variants", "--days", "2", "--json"))
    rows = {row["label"]: row for row in found["rows"]}
    assert (rows["bold"]["lists"], rows["default"]["lists"]) == (LISTS // 4, LISTS - LISTS // 4)
    difference = rows["bold"]["against_control"]["clicks_per_list"]
    assert difference["verdict"] == "better"
    assert 0.2 < difference["sequence"]["low"] < 0.4 < difference["sequence"]["high"] < 0.6
    shown = command(folder, "variants").stdout
    assert "25.00%" in shown
    assert ": better" in shown
    assert "no list of 'default'" not in shown
