"""`unillmrec tune`, as a process of its own over a store of its own."""

import json

import numpy as np

from tests.commands import DEMO, command, told


def test_histories_of_a_file_tune_the_vectors(tmp_path):
    items = [json.loads(line) for line in DEMO.read_text(encoding="utf-8").splitlines()]
    told(command(tmp_path / "data", "import", str(DEMO), "--json"))
    few = command(tmp_path / "data", "tune")
    assert few.returncode == 1
    assert "too few to learn from" in few.stderr

    rng = np.random.default_rng(0)
    some = [
        [item["id"] for item in items if item["categories"][0] == kind]
        for kind in ("Drama", "Comedy", "Horror", "Romance", "Adventure", "Thriller")
    ]
    rows = [
        {"user_id": f"u{n}", "history": rng.permutation(some[n % len(some)])[:7].tolist()}
        for n in range(1_000)
    ]
    file = tmp_path / "histories.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert told(command(tmp_path / "data", "events", str(file), "--json"))["counted"] == 7_000
    shown = command(tmp_path / "data", "tune", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "users" in shown.stdout
    assert ("not used: " in shown.stdout) or ("it would be used" in shown.stdout)
