"""Searches in an encrypted catalogue (SQLCipher) against the same in a plain one, side by side in one run.

    python bench/encrypted_search.py --folder /somewhere/large --data ../shared/data [--rows 100000]

The archive of `search.py`, and its copy made by `sqlcipher_export`. Each question is put to both, one after the other
and in turns the other way round, so that what else the machine does hits both alike. "again": the best of three, once
everything was asked before. "new": put for the first time since both were opened, so their pages have to be read and
decrypted. Beside it: opening a connection, and storing rows. Other parameters can be tried.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import event, text

from audio_storage_system.catalogue.posting_cache import cache_of
from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.search import Filter, Query, run
from audio_storage_system.vectors.sqlite import SQLiteIndex
from search import prepare, questions
from vector_archive import SPACE, Model

KEY = bytes(range(32))
MODES = ("semantic", "keyword", "hybrid")
RUNS = 3
NEVER = Deadline.after(None)
Clock = Callable[[], float]
Times = npt.NDArray[np.float64]


def encrypted(plain: Path, form: Mapping[str, str]) -> Path:
    """The same database encrypted, made once for each form of its pages."""
    from sqlcipher3 import dbapi2

    target = plain.with_suffix(f".{'-'.join(form.values())}.sealed")
    if target.exists():
        return target
    unfinished = target.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    started = time.perf_counter()
    connection = dbapi2.connect(str(plain))
    connection.execute("ATTACH DATABASE ? AS sealed KEY ?", (str(unfinished), f"x'{KEY.hex()}'"))
    for name, value in form.items():
        connection.execute(f"PRAGMA sealed.{name} = {value}")
    connection.execute("SELECT sqlcipher_export('sealed')")
    connection.close()
    print(f"encrypted: {time.perf_counter() - started:.0f} s", flush=True)
    return unfinished.rename(target)


class Side:
    """One of the two archives, opened anew for each measurement."""

    def __init__(self, path: Path, key: bytes | None, form: Mapping[str, str], cache: int = 0) -> None:
        self.database = Database.open(path, key)
        settings = [f"PRAGMA {name} = {value}" for name, value in form.items()]
        limits = [f"PRAGMA cache_size = -{cache}"] if cache else []
        event.listen(self.database.engine, "connect", _executing(settings), insert=True)
        event.listen(self.database.engine, "connect", _executing(limits))
        self.index = SQLiteIndex(self.database)

    def search(self, query: Query, clock: Clock) -> float:
        """Milliseconds."""
        started = clock()
        run(self.database, self.index, query, NEVER)
        return 1000 * (clock() - started)

    def open(self) -> float:
        """Milliseconds until a new connection has read its first page."""
        self.database.engine.dispose()
        started = time.perf_counter()
        with self.database.read() as connection:
            connection.execute(text("SELECT count(*) FROM archive")).scalar()
        return 1000 * (time.perf_counter() - started)

    def write(self) -> float:
        """Milliseconds for a transaction of 100 rows."""
        started = time.perf_counter()
        with self.database.write() as connection:
            for _ in range(100):
                connection.execute(text("INSERT INTO change_log (table_name, row_id, op) VALUES ('x', 1, 'insert')"))
        return 1000 * (time.perf_counter() - started)

    def close(self) -> None:
        cache_of(self.database.engine).clear()
        self.database.close()


def _executing(statements: Sequence[str]) -> Callable[[Any, Any], None]:
    def execute(driver: Any, _record: Any) -> None:
        for statement in statements:
            driver.execute(statement)

    return execute


def report(name: str, plain: Times, sealed: Times) -> None:
    """A line for one measurement. The ratio is that of the medians."""
    p, s = np.quantile(plain, [0.5, 0.95]), np.quantile(sealed, [0.5, 0.95])
    more = f"{s[0] - p[0]:+6.2f} / {s[1] - p[1]:+6.2f} ms   ratio {s[0] / p[0]:5.2f}"
    print(f"{name:18} plain {p[0]:7.2f} / {p[1]:7.2f} ms   sealed {s[0]:7.2f} / {s[1]:7.2f} ms   {more}", flush=True)


def in_turns(sides: Sequence[Side], calls: Sequence[Callable[[Side], float]]) -> list[Times]:
    """The times of each call at each side, which takes turns at being first."""
    times = np.zeros((2, len(calls)))
    for number, call in enumerate(calls):
        for side in (0, 1) if number % 2 else (1, 0):
            times[side, number] = call(sides[side])
    return [times[0], times[1]]


def measure(make: Callable[[], list[Side]], queries: Sequence[Query], mode: str) -> None:
    sides = make()
    calls = [lambda side, query=query: side.search(query, time.perf_counter) for query in queries]  # type: ignore[misc]
    report(f"{mode}, new", *in_turns(sides, calls))
    again = [in_turns(sides, calls) for _ in range(RUNS)]
    report(f"{mode}, again", *(np.min([one[side] for one in again], axis=0) for side in (0, 1)))
    calls = [lambda side, query=query: side.search(query, time.process_time) for query in queries]  # type: ignore[misc]
    report(f"{mode}, CPU", *in_turns(sides, calls))
    for side in sides:
        side.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--page-size", default="4096")
    parser.add_argument("--hmac", default="HMAC_SHA256")
    parser.add_argument("--cache", type=int, default=0, help="KiB of pages kept by each connection of the sealed one")
    given = parser.parse_args()
    plain = prepare(given.folder, given.data, given.rows)
    form = {"cipher_page_size": given.page_size, "cipher_hmac_algorithm": given.hmac}
    sealed = encrypted(plain, form)
    asked = questions(given.data)[: given.queries]
    vectors = Model.make().draw(len(asked), seed=10**6)

    def make() -> list[Side]:
        return [Side(plain, None, {}), Side(sealed, KEY, form, given.cache)]

    print(f"{given.rows} passages, {len(asked)} questions, {os.cpu_count()} cores; p50 / p95")
    sides = make()
    report("open a connection", *in_turns(sides, [Side.open] * 40))
    report("write 100 rows", *in_turns(sides, [Side.write] * 20))
    for side in sides:
        side.close()
    for mode in MODES:
        queries = [Query(asked[i], vectors[i], SPACE, mode, Filter()) for i in range(len(asked))]  # type: ignore[arg-type]
        measure(make, queries, mode)


if __name__ == "__main__":
    main()
