"""What asking as somebody costs: the searches of `search.py`, in an archive that many share.

    python bench/access.py --folder /somewhere/large --data ../shared/data [--rows 1000000] [--owners 1000]

Takes a copy of the archive of `search.py` (in --folder) and gives its recordings to --owners principals in turn. Then
it measures the same questions unrestricted, as one who owns his share, as one who also was granted a hundredth of the
rest by a selection, as one with a tenth in ten selections, and as one who may read everything; and beside it the rule
alone: listing what is seen, and asking about one recording. The ratio is to the unrestricted search.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from sqlalchemy import func, insert, select, text

from audio_storage_system.access import Access, Reach
from audio_storage_system.database import Database
from audio_storage_system.database.tables import audio_files, grant_conditions, grants, principals
from audio_storage_system.search import Filter, Query, run
from audio_storage_system.vectors.sqlite import SQLiteIndex
from search import NEVER, prepare, questions
from vector_archive import SPACE, Model

FIRST = 1_000_000
SELECTIONS = {"owner": [], "owner + 1 %": [3], "10 % in ten": list(range(10)), "reads everything": None}
RUNS = 5


def share_out(path: Path, owners: int) -> Path:
    """The same archive with many owners."""
    shared = path.with_name(f"access-{path.stem}-{owners}.db")
    if shared.exists():
        return shared
    unfinished = shared.with_suffix(".unfinished")
    shutil.copyfile(path, unfinished)
    database = Database.open(unfinished)
    with database.write() as connection:
        rows = [{"id": FIRST + n, "name": f"user {n}", "kind": "user"} for n in range(owners + len(SELECTIONS))]
        connection.execute(insert(principals), rows)
        given = {"first": FIRST, "owners": owners}
        connection.execute(text("UPDATE audio_files SET owner_id = :first + id % :owners"), given)
        for number, buckets in enumerate(SELECTIONS.values()):
            _grant(connection, FIRST + number, buckets)
    database.close()
    return unfinished.rename(shared)


def _grant(connection: object, principal_id: int, buckets: list[int] | None) -> None:
    execute = connection.execute  # type: ignore[attr-defined]
    row = {"principal_id": principal_id, "role": "reader", "created_by": 1}
    if buckets is None:
        execute(insert(grants), {**row, "reach": Reach.ARCHIVE.value})
    for bucket in buckets or ():
        made = execute(insert(grants).returning(grants.c.id), {**row, "reach": Reach.SELECTION.value}).scalar_one()
        condition = {"grant_id": made, "key": "bucket", "value": str(bucket), "value_number": float(bucket)}
        execute(insert(grant_conditions), condition)


def best(call: Callable[[int], object], count: int) -> np.ndarray:
    """The milliseconds of each call: the best of some, after all were run once."""
    times = np.full((RUNS + 1, count), np.inf)
    for turn, i in np.ndindex(times.shape):
        started = time.perf_counter()
        call(i)
        times[turn, i] = 1000 * (time.perf_counter() - started)
    return times[1:].min(axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--owners", type=int, default=1_000)
    parser.add_argument("--queries", type=int, default=100)
    given = parser.parse_args()
    path = share_out(prepare(given.folder, given.data, given.rows), given.owners)
    asked = questions(given.data)[: given.queries]
    vectors = Model.make().draw(len(asked), seed=10**6)
    database = Database.open(path)
    index = SQLiteIndex(database)
    who = {name: Access(FIRST + n, name, restricted=True, database=database) for n, name in enumerate(SELECTIONS)}
    for name, access in who.items():
        rule(database, name, access)

    def search(i: int, mode: str, access: Access | None) -> object:
        query = Query(asked[i], vectors[i], SPACE, mode, Filter(access=access))  # type: ignore[arg-type]
        return run(database, index, query, NEVER)

    for mode in ("semantic", "keyword", "hybrid"):
        plain = best(partial(search, mode=mode, access=None), len(asked))
        print(f"{mode:9} {'unrestricted':18} p50 {np.median(plain):6.1f} ms  p95 {np.quantile(plain, 0.95):6.1f} ms")
        for name, access in who.items():
            took = best(partial(search, mode=mode, access=access), len(asked))
            ratio = np.median(took) / np.median(plain)
            print(
                f"{mode:9} {name:18} p50 {np.median(took):6.1f} ms  p95 {np.quantile(took, 0.95):6.1f} ms"
                f"  {ratio:5.2f} x",
                flush=True,
            )


def rule(database: Database, name: str, access: Access) -> None:
    """How many recordings are seen, and what asking for them takes."""
    listing = select(func.count()).select_from(access.recordings().subquery())
    with database.read() as connection:
        newest = connection.execute(select(func.max(audio_files.c.id))).scalar_one()
        seen = connection.execute(listing).scalar_one()
        listed = best(lambda _: connection.execute(listing).scalar_one(), 3)
        probed = best(lambda i: access.may(connection, 1 + i * newest // 20), 20)
    took = f"listed in {listed.min():.2f} ms, one asked in {np.median(probed):.2f} ms"
    print(f"rule      {name:18} {seen:7,} recordings {took}")


if __name__ == "__main__":
    main()
