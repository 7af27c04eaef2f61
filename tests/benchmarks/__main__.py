"""`make bench`: every figure beside its target, as tables or, with --json, a line each.

    make bench                          all of it (some 25 minutes)
    make bench ARGS="quality --json"    some sections: quality, serving, inserts, ingest, commits,
                                        churn, growth, rebuild, soak, size, models,
                                        models-1m, signals, schema, cheap, catalogs, sigterm,
                                        keys, backup, enrichment, embeddings, encoding,
                                        weak_models, own_work, lists, attacks,
                                        event_types, attribution, daily_looks
    make bench ARGS="soak --minutes 10" a longer soak

Real catalogues are looked for beside the checkout or in UNILLMREC_BENCH_DATA; without them the
sections that need them are left out.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial

from tests.benchmarks import (
    attacks,
    attributing,
    backups,
    catalogs,
    cheap,
    churn,
    commits,
    daily_looks,
    data,
    description,
    embeddings,
    encoding,
    endpoints,
    enriching,
    event_types,
    events,
    keyed,
    lists,
    living,
    models,
    own_work,
    quality,
    rebuilding,
    serving,
    signals,
    size,
    stopping,
    weak_models,
)
from tests.benchmarks.figures import Figure, show

_SECTIONS: dict[str, tuple[str, bool, Callable[[], Iterator[Figure]]]] = {
    "quality": ("Shape of the tree and quality of the answers", True, quality.real),
    "serving": ("Over HTTP, 64,031 items", True, serving.real),
    "inserts": ("Over HTTP, 100,000 made-up items", False, serving.synthetic),
    "ingest": ("Ingestion over HTTP into 100,000 made-up items", False, living.ingest),
    "commits": ("Processor time of commits into 100,000 made-up items", False, commits.costs),
    "churn": ("A tree whose items are all replaced", True, churn.real),
    "growth": ("Cost by size, made-up items", False, churn.growth),
    "rebuild": ("A rebuild beside readers, 1,000,000 made-up items", False, rebuilding.million),
    "keys": ("What keys add to a recommendation", False, keyed.real),
    "lists": ("Lists for many users, 16,859 items", True, lists.real),
    "signals": ("What users' events add", True, signals.real),
    "attacks": ("What made-up accounts gain, 16,859 items", True, attacks.real),
    "events": ("Events over HTTP, 16,859 items, 20,000 users", True, events.real),
    "attribution": ("Answers and events, joined in the store", False, attributing.real),
    "daily_looks": ("Variants looked at every day", False, daily_looks.real),
    "event_types": ("What likes, views and dislikes do to lists, films", True, event_types.real),
    "catalogs": (
        "Catalogues deleted and created under writes, processes killed",
        True,
        catalogs.real,
    ),
    "cheap": ("What costly requests hold up, 64,031 items", True, cheap.real),
    "backup": ("Backup and restore, 16,859 items", True, backups.real),
    "encoding": ("Texts that are encoded in a second on one core", True, encoding.real),
    "embeddings": ("Texts that an endpoint is asked for, 16,859 items", True, embeddings.real),
    "enrichment": ("An enrichment beside users, 10,000 items", True, enriching.real),
    "soak": ("Steady writes and reads", False, living.soak),
    "size": ("Large catalogues", False, size.builds),
    "schema": ("What the service answers against its description", False, description.described),
    "endpoints": ("Kinds of endpoints, 725 items", False, endpoints.kinds),
    "models": ("With a model, which a scripted judge stands in for", True, models.real),
    "own_work": ("Own work beside a model's calls, 16,859 items", True, own_work.real),
    "weak_models": (
        "Weak models, by their standing, against vectors alone",
        True,
        weak_models.real,
    ),
    "sigterm": ("A service that is told to end while it is busy", False, stopping.sigterm),
    "models-1m": ("With a model, 1,000,000 made-up items", False, models.million),
}


def main() -> int:
    """0 when every target of the chosen sections was reached."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[[], *_SECTIONS], metavar="section")
    parser.add_argument("--json", action="store_true", help="one JSON object per figure")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long the soak lasts")
    arguments = parser.parse_args()
    _SECTIONS["soak"] = (*_SECTIONS["soak"][:2], partial(living.soak, arguments.minutes))
    reached = True
    for name in arguments.sections or _SECTIONS:
        title, needs_data, figures = _SECTIONS[name]
        if needs_data and not data.available():
            print(f"{name}: left out, no catalogues in {data.FOLDER}", file=sys.stderr)
            continue
        reached &= show(title, figures(), as_json=arguments.json)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
