"""Which items are near-duplicates, by their texts alone."""

from itertools import permutations

import pytest

from app.recommend.near_duplicates import NearDuplicates, title_key
from tree.item import Item

ONE_THING = [
    # platforms, editions, formats
    ("Halo 3 (Xbox 360)", "Halo 3 - Xbox 360 Limited Edition"),
    ("FIFA 15 - PlayStation 4", "FIFA 15 [Online Game Code]"),
    ("The Sims 3: Town Life Stuff - PC/Mac", "The Sims 3: Town Life Stuff [Download]"),
    ("Metro: Last Light, Limited Edition - PC", "Metro: Last Light Complete Edition"),
    ("Titanfall 2 Deluxe Edition - Xbox One", "Titanfall 2"),
    ("Blade Runner (Blu-ray)", "Blade Runner [DVD]"),
    ("1984 (Paperback)", "1984 - Hardcover"),
    ("Mia e il mare (copertina rigida)", "Mia e il mare [Audiolibro]"),
    ("Der Prozess (gebundene Ausgabe)", "Der Prozess: Hörbuch"),
    # sizes and colours
    ("T-Shirt Cat, red, size 42", "T-shirt »Cat« (blue, XL)"),
    ("T-Shirt Katze, weiß, Größe M", "T-Shirt Katze - schwarz - Gr. 42"),
    ("Camiseta gato, roja, talla M", "Camiseta gato (azul)"),
    ("Tasse bleue - grande", "Tasse bleue (petit)"),
    ("Tシャツ 猫（黒）Lサイズ", "Tシャツ 猫 【白】"),
    ("コーヒー豆 500g", "コーヒー豆 1kg"),
    ("Футболка с котом, синий, размер 48", "Футболка с котом (красный)"),
    ("iPhone 12, 64 GB, midnight blue", "iPhone 12 128GB (Black)"),
    # quantities
    ("Kaffee 500 g", "Kaffee, 1 kg, 6er-Pack"),
    ("Duct Tape, 1.88” x 9 yd (Pack of 1)", 'Duct Tape, 2" x 30 yd, (Pack of 12)'),
    ('Wood Screws #6 x 5/8" 100 Pack', 'Wood Screws #8 x 1-1/4" - 50 Pcs'),
    ("Nitrile Exam Gloves, Small, Box/100", "Nitrile Exam Gloves, Large, 200 per box"),
    ("6ft HDMI Cable", "10ft HDMI Cable"),
    ("HDMI Cable, 6 feet", "HDMI Cable - 10 feet"),
    ("16GB Memory Card", "32 GB Memory Card"),
    ("3 Pack Stylus", "12 Pack Stylus"),
    ("1/4 inch x 55 yds Copper Tape", "1/8 inch x 55 yds Copper Tape"),
    ("2 inch x 55 yds Copper Tape", "1 inch x 55 yds Copper Tape"),
    # punctuation, case, width, order of words
    ("Stampede!", "STAMPEDE"),
    ("Rock 'N' Roll Ｄｒｅａｍ", "rock ‘n’ roll dream"),
    ("Citric Acid - Organic, 100% Pure", "100% pure organic citric acid"),
]

TWO_THINGS = [
    ("Alien", "Aliens"),
    ("Final Fantasy VII", "Final Fantasy VIII"),
    ("Rocky II", "Rocky III"),
    ("iPhone 12 (Black)", "iPhone 13 (Black)"),
    ("NBA 2K14 - Xbox One", "NBA 2K15 - Xbox One"),
    ("Hamlet (1996)", "Hamlet (2000)"),
    ("Greatest Hits, Vol. 1", "Greatest Hits, Vol. 2"),
    ("Hannibal Season 2 Volume 1 Soundtrack", "Hannibal Season 1 Volume 2 Soundtrack"),
    ("Tomb Raider - Legend", "Tomb Raider - Anniversary"),
    ("Harry Potter (Book 1)", "Harry Potter (Book 2)"),
    ("Black Swan", "White Swan"),
    ("Blue Valentine", "Red Valentine"),
    ("Black - PlayStation 2", "Blue - PlayStation 2"),
    ("ABBA: Gold", "ABBA"),
    ("5 Classic Albums - James Brown", "5 Classic Albums - Al Green"),
    ("Half-Life 2 PC", "Half-Life"),
    ("5x2 (2004)", "3x3 (2004)"),
    ("21 Grams (2003)", "12 Feet (2003)"),
    ("5 Feet Apart", "6 Feet Apart"),
    ("10-Yard Fight", "12-Yard Fight (NES)"),
    ("2-in-1 Laptop", "Laptop"),
    ("Who Are You", "Who You Are"),
    ("C++", "C#"),
    ("?", "!"),
    ("कि", "की"),
    ("Wii Sports", "Wii Play"),
    ("20,000 Leagues Under the Sea", "10,000 Leagues Under the Sea"),
]

LONG = "A shirt of soft cotton with a cat on it, made for people who like both cats and shirts."


def folds(one: Item, other: Item) -> bool:
    forward, backward = NearDuplicates(), NearDuplicates()
    forward.add(one, 7)
    backward.add(other, 7)
    found = forward.fold(other)
    assert found == backward.fold(one), "which of two comes first makes no difference"
    assert found in (None, 7)
    return found == 7


def item(title: str, **fields) -> Item:
    return Item(id="x", title=title, **fields)


@pytest.mark.parametrize(("one", "other"), ONE_THING)
def test_titles_of_one_thing(one, other):
    assert folds(item(one), item(other)), (title_key(one), title_key(other))


@pytest.mark.parametrize(("one", "other"), TWO_THINGS)
def test_titles_of_two_things(one, other):
    assert not folds(item(one), item(other)), (title_key(one), title_key(other))


@pytest.mark.parametrize("title", [title for pair in ONE_THING + TWO_THINGS for title in pair])
def test_an_item_repeats_its_like(title):
    assert title_key(title)
    assert folds(item(title), item(title))


def test_the_same_title_in_another_genre_is_another_thing():
    metal = item("Live", categories=("Music", "Metal", "Pop Metal"))
    house = item("Live", categories=("Music", "Dance & Electronic", "House"))
    assert not folds(metal, house)
    assert folds(metal, item("Live!", categories=("Music", "Metal", "Pop Metal")))
    assert folds(metal, item("Live"))  # nothing says that it is another one


def test_a_category_that_names_the_platform_tells_nothing_apart():
    one = item("Doom - PC", categories=("Games", "PC"))
    other = item("Doom - PS4", categories=("Games", "PlayStation 4"))
    assert folds(one, other)


def test_the_same_title_in_another_domain_is_another_thing():
    assert not folds(item("Dune", domain="books"), item("Dune", domain="films"))


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ({"artist": "Queen"}, {"artist": "ABBA"}, False),
        ({"artist": "Queen"}, {"artist": "QUEEN"}, True),
        ({"authors": ("A", "B")}, {"authors": ("B", "C")}, True),
        ({"authors": ("A",)}, {"authors": ("C",)}, False),
        ({"year": 1990}, {"year": 2005}, False),
        ({"artist": "Queen"}, {}, True),
        ({"colour": "red", "sku": "1"}, {"colour": "blue", "sku": "2"}, True),
    ],
)
def test_attributes_that_tell_two_things_apart(one, other, alike):
    first, second = item("Greatest Hits", attributes=one), item("Greatest Hits", attributes=other)
    assert folds(first, second) is alike


BRANDS: list[dict[str, str]] = [{}, {"brand": "ACME"}, {"brand": "Other"}, {"brand": ""}]


def leaders(things: NearDuplicates, items: list[Item]) -> list[Item]:
    found: list[Item] = []
    for one in items:
        if things.fold(one) is None:
            things.add(one, len(found))
            found.append(one)
    return found


@pytest.mark.parametrize("order", [*permutations(BRANDS)])
@pytest.mark.parametrize("text", ["", LONG])
def test_no_thing_has_two_brands_whichever_item_comes_first(order, text):
    shirts = [item("Cotton T-Shirt", description=text, attributes=brand) for brand in order]
    assert len(leaders(NearDuplicates(), shirts)) == 2


@pytest.mark.parametrize("order", [*permutations(BRANDS)])
def test_each_brand_has_an_item_of_its_own_where_brands_are_groups(order):
    shirts = [item("Cotton T-Shirt", attributes=brand) for brand in order]
    found = leaders(NearDuplicates("brand"), shirts)
    assert sorted(one.attributes.get("brand") or "" for one in found) == ["", "ACME", "Other"]


def test_all_items_of_one_thing_have_an_author_in_common():
    names = [("A", "B"), ("B", "C"), ("C", "A")]
    books = [item("Essays", attributes={"authors": authors}) for authors in names]
    assert len(leaders(NearDuplicates(), books)) == 2


def test_one_description_carries_words_that_no_list_has():
    one = item("Camisola Gato cor de vinho", description=LONG)
    other = item("Camisola Gato cor de mel", description=LONG)
    assert folds(one, other)
    assert not folds(one, item("Camisola Gato cor de mel", description=LONG + " Also for dogs."))
    assert not folds(item("Shirt Cat wine", description="Soft."), item("Shirt Cat honey"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Shirt Cat One 2024", "Shirt Cat One 2025"),
        ("Introduction to Statistics", "Introduction to Algebra"),
        ("The Great Cat", "A Small Dog"),
    ],
)
def test_one_description_does_not_make_one_thing_of_two(one, other):
    assert not folds(item(one, description=LONG), item(other, description=LONG))


def test_a_very_long_title_repeats_its_like_alone():
    title = "word " * 150
    assert folds(item(title), item(title.upper()))
    assert not folds(item(title), item(title + "(red)"))


@pytest.mark.parametrize(
    "title", ["1 x " * 100, "pc mac " * 55 + "zz", "(" * 399, "1/1 x 1-" * 45, "ö" * 400]
)
def test_no_title_takes_long(title):
    """The steps are few: with a step for every division of the text, this would take days."""
    assert title_key(title[:400])
