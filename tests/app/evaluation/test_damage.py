"""Whatever is in the files: a data set, or a DataError with its place. Nothing else."""

import gzip
import tempfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from app.evaluation.dataset import DataError
from app.evaluation.formats import DataFormat, load

VALID: dict[DataFormat, dict[str, bytes]] = {
    DataFormat.PLAIN: {
        "items.jsonl": b'{"id": "a", "title": "A"}\n{"id": "b", "title": "B"}\n',
        "histories.jsonl": b'{"user_id": "u", "history": ["a", "b"], "timestamps": [1, 2], '
        b'"time": 3, "impression": [["a", 1]], "ratings": [1, 2.5]}\n',
    },
    DataFormat.MIND: {
        "news.tsv": b'N1\tsports\tsoccer\tA\tB\turl\t[{"Label": "X"}]\t[]\n',
        "behaviors.tsv": b"1\tU1\t11/15/2019 8:00:00 AM\tN1\tN1-0 N1-1\n",
    },
    DataFormat.AMAZON: {
        "meta_X.json": b"{'asin': 'A', 'title': 'T', 'categories': [['C']]}\n"
        b'{"parent_asin": "B", "title": "T", "categories": ["C"], "description": ["D"]}\n',
        "reviews_X.json": b'{"reviewerID": "U", "asin": "A", "overall": 5, "unixReviewTime": 9}\n'
        b'{"user_id": "U", "parent_asin": "B", "rating": 5, "timestamp": 1588687728923}\n',
    },
    DataFormat.MOVIELENS: {
        "movies.csv": b'movieId,title,genres\n1,"Heat, The",Drama|Crime\n',
        "ratings.csv": b"userId,movieId,rating,timestamp\n1,1,4.0,20\n",
        "tags.csv": b"userId,movieId,tag,timestamp\n1,1,x,20\n",
        "movies.dat": b"2::Heat::Drama\n",
        "ratings.dat": b"1::2::5::978300760\n",
    },
}
FILES = [(each, name) for each, files in VALID.items() for name in files]


@given(
    file=st.sampled_from(FILES),
    start=st.integers(0, 150),
    length=st.integers(0, 40),
    inserted=st.one_of(
        st.binary(max_size=12),
        st.sampled_from([b"\n", b'"', b"'", b"\t", b"::", b"{", b"[", b"1e400", b"-9e18", b"null"]),
    ),
    packed=st.booleans(),
    cut=st.integers(0, 30),
)
@example((DataFormat.PLAIN, "histories.jsonl"), 55, 1, b"9" * 400, False, 0)
def test_damage(
    file: tuple[DataFormat, str], start: int, length: int, inserted: bytes, packed: bool, cut: int
) -> None:
    kind, name = file
    content = VALID[kind][name]
    content = content[:start] + inserted + content[start + length :]
    if packed:
        content = gzip.compress(content)
        content = content[: len(content) - cut]
    with tempfile.TemporaryDirectory() as folder:
        for other, valid in VALID[kind].items():
            (Path(folder) / other).write_bytes(content if other == name else valid)
        try:
            data = load(Path(folder), kind)
        except DataError as error:
            assert any(each in str(error) for each in VALID[kind])  # noqa: PT017
            assert "expected " in str(error)  # noqa: PT017
            return
    known = {item.id for item in data.items}
    assert data.users
    for user in data.users:
        assert user.history
        assert set(user.history) <= known
        assert len(set(user.history)) == len(user.history)
        assert list(user.times) == sorted(user.times)
        assert len(user.times) in {0, len(user.history)}
        for shown in user.impressions:
            assert shown.chosen <= set(shown.shown) <= known
