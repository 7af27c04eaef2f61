"""Keys stay in the slot of their catalogue, whatever an item is called."""

import pytest

from app.storage.keys import DocumentKeys, classify
from tree.redis.keys import Lifetime
from tree.store.keys import CatalogKeys

ODD_IDS = ["a/b", "{x}", "}{", "new\nline", "\U0001f600", "*?[a]\\", ":head", " "]


@pytest.mark.parametrize("item_id", ODD_IDS)
def test_the_first_braces_of_a_key_hold_the_catalogue(item_id):
    keys = CatalogKeys("books")
    for key in (keys.item(item_id), keys.snapshot(item_id), keys.space(item_id)):
        start = key.index("{")
        assert key[start : key.index("}") + 1] == "{books}"


@pytest.mark.parametrize("item_id", ODD_IDS)
def test_every_key_is_declared(item_id):
    keys = CatalogKeys("books", "app:1")
    for key in (keys.head, keys.log, keys.staged, keys.item(item_id)):
        assert classify(key, "app:1") == ("books", Lifetime.PERMANENT)
    for key in (keys.snapshot(item_id), keys.space(item_id)):
        assert classify(key, "app:1") == ("books", Lifetime.CURRENT)
    assert classify(keys.compacting, "app:1") == ("books", Lifetime.EXPIRING)
    job, catalog = DocumentKeys("job"), DocumentKeys("catalog")
    assert classify(job.document(item_id)) == ("document.job", Lifetime.EXPIRING)
    assert classify(catalog.document(item_id)) == ("document.catalog", Lifetime.PERMANENT)
    assert classify(job.index) == ("document.job", Lifetime.EXPIRING)
    assert classify(catalog.index) == ("document.catalog", Lifetime.PERMANENT)


@pytest.mark.parametrize(
    "key",
    [
        "unillmrec:{books}:cache",
        "unillmrec:head",
        "other:{books}:head",
        "unillmrec:{document.x}:at:1",
    ],
)
def test_a_foreign_key_is_refused(key):
    with pytest.raises(ValueError, match=r"is no key|undeclared role"):
        classify(key)


@pytest.mark.parametrize("catalog", ["", "Books", "a b", "a}b", "a" * 65, "a.b", "ä"])
def test_a_catalogue_needs_a_plain_name(catalog):
    with pytest.raises(ValueError, match="must match"):
        CatalogKeys(catalog)


@pytest.mark.parametrize("prefix", ["", "{x}", "a b", "a*", "a" * 65])
def test_a_prefix_needs_a_plain_name(prefix):
    with pytest.raises(ValueError, match="must match"):
        CatalogKeys("books", prefix)
