"""Whole searches at scale: real text and synthetic vectors, through the same code as `search_similar_audio`.

    python bench/search.py --folder /somewhere/large --data ../shared/data [--rows 1000000]

Makes the archive of `vectors.py` once (in --folder), gives every passage 100 words cut at random from real earnings
calls and meetings, and measures semantic and hybrid search, unfiltered and with filters that a fifth and a hundredth of
the recordings pass. The queries are real questions about meetings. Beside it: the time of the full text alone, of the
vector index alone, and a bare `SELECT 1`, which is what any answer from the database costs at least.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from sqlalchemy import text

from audio_storage_system.catalogue import fulltext
from audio_storage_system.catalogue.posting_cache import cache_of
from audio_storage_system.clock import Deadline
from audio_storage_system.database import Database
from audio_storage_system.search import Filter, Query, run
from audio_storage_system.vectors.sqlite import SQLiteIndex
from vector_archive import SPACE, Model, build
from vector_measures import memory

FILTERS = {"none": Filter(), "20 %": Filter({"bucket": {"lt": 20}}), "1 %": Filter({"bucket": 3})}
WORDS = 100
RUNS = 3
NEVER = Deadline.after(None)


def corpus(data: Path) -> list[str]:
    """Every word of the earnings calls and meetings, in order."""
    words: list[str] = []
    for line in (data / "qmsum" / "meetings.jsonl").read_text().splitlines():
        words += " ".join(turn["text"] for turn in json.loads(line)["turns"]).split()
    return words


def questions(data: Path) -> list[str]:
    rows = [json.loads(line) for line in (data / "qmsum" / "queries.jsonl").read_text().splitlines()]
    return [row["query"] for row in rows if row["kind"] != "topic"]


def texts(words: list[str], count: int) -> Iterator[tuple[int, str]]:
    rng = np.random.default_rng(3)
    for id_, start in enumerate(rng.integers(len(words) - WORDS, size=count).tolist(), 1):
        yield id_, " ".join(words[start : start + WORDS])


def prepare(folder: Path, data: Path, rows: int) -> Path:
    """The archive with text, made once."""
    bare, full = folder / f"archive-{rows}.db", folder / f"search-{rows}.db"
    build(bare, rows)
    if full.exists():
        return full
    unfinished = full.with_suffix(".unfinished")
    shutil.copyfile(bare, unfinished)
    database, words, started = Database.open(unfinished), corpus(data), time.perf_counter()
    with database.write() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.executemany("UPDATE passages SET text = ?2 WHERE id = ?1", texts(words, rows))
        connection.execute(text("UPDATE transcripts SET language = 'en'"))
    print(f"text: {time.perf_counter() - started:.0f} s", flush=True)
    with database.write() as connection:
        fulltext.rebuild(connection)
    print(f"full text: {time.perf_counter() - started:.0f} s", flush=True)
    SQLiteIndex(database).catch_up(SPACE)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return unfinished.rename(full)


def timed(call: Callable[[int], object], count: int, warm: Callable[[int], object] | None = None) -> str:
    """Each call the best of `RUNS`, after all were run once; with `warm`, once only and after those other calls."""
    for i in range(count):  # from the disk into memory
        (warm or call)(i)
    wall, cpu = np.zeros((2, 1 if warm else RUNS, count))
    for run_, i in np.ndindex(wall.shape):
        started, used = time.perf_counter(), time.process_time()
        call(i)
        wall[run_, i], cpu[run_, i] = time.perf_counter() - started, time.process_time() - used
    figures = [*np.quantile(1000 * wall.min(axis=0), [0.5, 0.95]), *np.quantile(1000 * cpu.min(axis=0), [0.5, 0.95])]
    return "p50 {:6.1f} ms   p95 {:6.1f} ms   CPU {:6.1f} / {:6.1f} ms".format(*figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--new", action="store_true", help="time questions that were not asked before, each once")
    given = parser.parse_args()
    path = prepare(given.folder, given.data, given.rows)
    asked = questions(given.data)[: 2 * given.queries]
    vectors = Model.make().draw(len(asked), seed=10**6)
    count = len(asked) // 2
    base = memory("VmRSS")
    started = time.perf_counter()
    database = Database.open(path)
    index = SQLiteIndex(database)

    def search(i: int, mode: str, wanted: Filter) -> object:
        query = Query(asked[i], vectors[i], SPACE, mode, wanted)  # type: ignore[arg-type]
        return run(database, index, query, NEVER)

    search(0, "hybrid", Filter())
    print(f"first search of a fresh process: {1000 * (time.perf_counter() - started):.0f} ms")
    with database.read() as connection:
        print("SELECT 1                 ", timed(lambda i: connection.execute(text("SELECT 1")).scalar(), count))
    for mode in ("semantic", "keyword", "hybrid"):
        for name, wanted in FILTERS.items():
            call = partial(search, mode=mode, wanted=wanted)
            others = (lambda i, other=call: other(i + count)) if given.new else None  # type: ignore[misc]
            print(f"{mode:9} filter {name:5}   ", timed(call, count, others), flush=True)
            if given.new:
                cache_of(database.engine).clear()
    print(f"memory over the process's base: {memory('VmHWM') - base:.0f} MB")


if __name__ == "__main__":
    main()
