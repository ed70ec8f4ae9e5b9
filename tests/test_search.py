"""Searching: what is found, in which order, and that filters act as if they came first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text as sql

from audio_storage_system.archive import Archive, open_archive
from audio_storage_system.catalogue import embeddings, recordings, transcripts
from audio_storage_system.clock import Deadline
from audio_storage_system.errors import ArchiveBusy, DeadlineExceeded, InvalidFilter, InvalidInput
from audio_storage_system.records import Space
from audio_storage_system.search import Filter, Query, SearchResults, run
from audio_storage_system.vectors.exact import ExactIndex
from builders import Talk, fill, say, text_space, unit
from catalogues import Catalogues
from postgres_server import Server

DIMENSION = 24
WORDS = "budget roadmap kitchen river piano engine garden window contract holiday surgery invoice".split()
NEVER = Deadline.after(None)
# As many threads as there are connections to the database.
CROWD = 32


@pytest.fixture
def archive(home: Path) -> Iterator[Archive]:
    opened = open_archive(home, create=True)
    yield opened
    opened.close()


def find(archive: Archive, text: str, deadline: Deadline = NEVER, **options: Any) -> SearchResults:
    return run(archive.database, archive.index, Query(text, **options), deadline)


def names(results: SearchResults) -> list[int]:
    return [hit.audio_id for hit in results]


# What a hit says


def test_a_hit_points_to_the_words(archive: Archive) -> None:
    talk = Talk(
        ["We open with the weather.", "The budget for spring is approved.", "Then we close."],
        metadata={"user": "john"},
        speakers=["Anna", "Ben", "Anna"],
    )
    [audio_id] = fill(archive, [talk])
    [hit] = find(archive, "approved budget", mode="keyword", context=1)
    assert (hit.audio_id, hit["start"], hit.end) == (audio_id, 10.0, 19.0)
    assert hit["transcription"] == "The budget for spring is approved."
    assert hit.original_name == "talk0.wav"
    assert (hit.speaker, hit.language, hit.metadata) == ("Ben", "en", {"user": "john"})
    assert [s.text for s in hit.before] == ["We open with the weather."]
    assert [s.text for s in hit.after] == ["Then we close."]
    assert np.isnan(hit.similarity) and hit.as_dict()["similarity"] is None


def test_similarity_is_the_true_cosine_in_every_mode(archive: Archive) -> None:
    space = text_space(archive, DIMENSION)
    rng = np.random.default_rng(0)
    vectors = [unit(rng, DIMENSION) for _ in range(8)]
    fill(archive, [Talk([f"the budget number {i}"], vectors=[v]) for i, v in enumerate(vectors)], space)
    wanted = unit(rng, DIMENSION)
    for mode in ("hybrid", "semantic", "keyword"):
        results = find(archive, "budget", vector=wanted, space=space, mode=mode)
        assert len(results) == 8
        for hit in results:
            assert hit.similarity == pytest.approx(float(vectors[hit.audio_id - 1] @ wanted), abs=1e-5)


def test_hits_page_without_gaps_or_repeats(archive: Archive) -> None:
    fill(archive, [Talk([f"the budget number {'and more ' * i}"]) for i in range(12)])
    whole = names(find(archive, "budget", mode="keyword", limit=12))
    paged = [n for offset in range(0, 12, 5) for n in names(find(archive, "budget", limit=5, offset=offset))]
    assert paged == whole and len(set(whole)) == 12


@pytest.fixture(scope="module")
def large(
    catalogues: Catalogues, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Archive, Space, np.ndarray[Any, Any]]]:
    """400 passages, of which 250 have the word; meaning ranks them otherwise than words do."""
    with (
        catalogues.at(tmp_path_factory.mktemp("large") / "archive") as home,
        closing(open_archive(home, create=True)) as opened,
    ):
        space, rng = text_space(opened, DIMENSION), np.random.default_rng(5)
        texts = [f"{'budget ' * (1 + i % 7)}{'more ' * (i % 11)}" if i < 250 else f"kitchen {i}" for i in range(400)]
        fill(opened, [Talk([text], vectors=[unit(rng, DIMENSION)]) for text in texts], space)
        yield opened, space, unit(rng, DIMENSION)


@pytest.mark.parametrize("mode", ["hybrid", "keyword", "semantic"])
@settings(max_examples=3, deadline=None)
@given(size=st.integers(20, 400))
@example(size=25)
@example(size=150)
def test_pages_of_any_size_are_the_one_long_page(
    large: tuple[Archive, Space, np.ndarray[Any, Any]], mode: str, size: int
) -> None:
    archive, space, wanted = large

    def page(limit: int, offset: int = 0) -> list[tuple[int, float]]:
        found = find(archive, "budget", vector=wanted, space=space, mode=mode, limit=limit, offset=offset)
        return [(hit.audio_id, hit.score) for hit in found]

    whole = page(1000)
    assert [hit for offset in range(0, 420, size) for hit in page(size, offset)] == whole
    assert len({id_ for id_, _ in whole}) == len(whole) == (250 if mode == "keyword" else 400)
    scores = [score for _, score in whole]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("options", [{"mode": "magic"}, {"limit": -1}, {"offset": -1}, {"limit": 10**9}])
def test_impossible_requests_are_refused(archive: Archive, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        find(archive, "x", **options)


@pytest.mark.parametrize("text", ["", "   ", '"', '" OR "', "NEAR(", "a* AND", "\0", "\ud800", "-", "^:{}", "💥" * 99])
def test_any_text_can_be_searched_for(archive: Archive, text: str) -> None:
    fill(archive, [Talk(["the budget"])])
    for mode in ("hybrid", "keyword", "semantic"):
        assert isinstance(find(archive, text, mode=mode).total, int)


def test_ten_megabytes_of_query_are_answered(archive: Archive) -> None:
    fill(archive, [Talk(["the budget"])])
    assert names(find(archive, "budget " + "x y z " * 1_700_000)) == [1]


# Versions


def test_search_follows_the_active_version_at_once(archive: Archive) -> None:
    [audio_id] = fill(archive, [Talk(["the first wording"])])
    with archive.database.write() as connection:
        second = say(connection, audio_id, Talk(["another phrase"]))
    assert names(find(archive, "wording")) == [1] and not find(archive, "phrase")
    with archive.database.write() as connection:
        transcripts.activate(connection, second)
    assert names(find(archive, "phrase")) == [1] and not find(archive, "wording")


def test_a_recording_without_an_active_version_is_searched_through_its_running_one(archive: Archive) -> None:
    [audio_id] = fill(archive, [Talk(["the first wording"])])
    with archive.database.write() as connection:
        connection.execute(sql("UPDATE transcripts SET active = false, outcome = NULL"))
    assert names(find(archive, "wording")) == [audio_id]
    with archive.database.write() as connection:
        connection.execute(sql("UPDATE transcripts SET outcome = 'failed'"))
    assert names(find(archive, "wording")) == []


def test_the_index_follows_and_the_log_of_changes_stays_short(archive: Archive) -> None:
    space = text_space(archive, DIMENSION)
    rng = np.random.default_rng(4)
    vectors = [unit(rng, DIMENSION) for _ in range(5000)]
    texts = [f"number {i}" for i in range(5000)]
    fill(archive, [Talk(texts[i : i + 500], vectors=vectors[i : i + 500]) for i in range(0, 5000, 500)], space)
    archive.follow()
    with archive.database.read() as connection:
        left = connection.execute(sql("SELECT count(*) FROM change_log WHERE table_name = 'embeddings'")).scalar_one()
    assert left == 0
    [best] = find(archive, "", vector=vectors[1234], space=space, mode="semantic", limit=1)
    assert best.transcription == "number 1234"


# Filters act as if they came first


def brute_force(talk: Talk, where: dict[str, Any]) -> bool:
    """What the documentation of `where` says, in plain Python."""
    return all(_holds(talk.metadata, key, wanted) for key, wanted in where.items())


def _holds(metadata: Any, key: str, wanted: Any) -> bool:
    if isinstance(wanted, dict) and "exists" in wanted:
        return (key in metadata) is wanted["exists"]
    if key not in metadata:
        return False
    value = metadata[key]
    if isinstance(wanted, list):
        return value in wanted
    if not isinstance(wanted, dict):
        return bool(value == wanted)
    number = value.timestamp() if isinstance(value, datetime) else value
    if isinstance(number, str) or number is None:
        return False
    tests = {
        "gte": lambda a, b: a >= b,
        "lt": lambda a, b: a < b,
        "gt": lambda a, b: a > b,
        "lte": lambda a, b: a <= b,
    }
    limits = {name: b.timestamp() if isinstance(b, datetime) else b for name, b in wanted.items()}
    return all(tests[name](number, limit) for name, limit in limits.items())


instants = st.integers(0, 50).map(lambda day: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day))
metadatas = st.fixed_dictionaries(
    {},
    optional={
        "user": st.sampled_from(["john", "anna", "zoë"]),
        "score": st.integers(-3, 3) | st.sampled_from([0.5, 2.5]),
        "due": instants,
        "note": st.none() | st.just("x"),
    },
)
talk_lists = st.lists(
    st.builds(
        lambda words, metadata: Talk([" ".join(words)], metadata),
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=6),
        metadatas,
    ),
    min_size=1,
    max_size=12,
)
ranges = st.dictionaries(st.sampled_from(["gte", "lt", "gt", "lte"]), st.integers(-3, 3), min_size=1, max_size=2)
wheres = st.fixed_dictionaries(
    {},
    optional={
        "user": st.sampled_from(["john", "anna", "nobody"]) | st.lists(st.sampled_from(["john", "zoë"]), min_size=1),
        "score": st.integers(-3, 3) | ranges | st.just({"exists": True}),
        "due": st.dictionaries(st.sampled_from(["gte", "lt"]), instants, min_size=1),
        "note": st.just({"exists": False}) | st.none(),
    },
)
questions = given(talk_lists, wheres, st.sampled_from(WORDS))
some = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(some, max_examples=40)
@questions
def test_filtered_results_are_those_of_filtering_first(
    tmp_path_factory: pytest.TempPathFactory, talks: list[Talk], where: dict[str, Any], word: str
) -> None:
    filter_first(Catalogues(), tmp_path_factory.mktemp("a") / "archive", talks, where, word)


@settings(some, max_examples=12)  # each takes a database of its own
@questions
def test_filtered_results_on_postgresql_are_those_of_filtering_first(
    postgres_server: Server,
    postgres_template: str,
    tmp_path_factory: pytest.TempPathFactory,
    talks: list[Talk],
    where: dict[str, Any],
    word: str,
) -> None:
    catalogues = Catalogues(postgres_server, postgres_template)
    filter_first(catalogues, tmp_path_factory.mktemp("a") / "archive", talks, where, word)


def filter_first(catalogues: Catalogues, home: Path, talks: list[Talk], where: dict[str, Any], word: str) -> None:
    """Fill an archive, and compare what it finds with what plain Python lets pass."""
    with catalogues.at(home), closing(open_archive(home, create=True)) as archive:
        space = text_space(archive, DIMENSION)
        rng = np.random.default_rng(len(talks))
        talks = [Talk(t.texts, t.metadata, vectors=[unit(rng, DIMENSION)]) for t in talks]
        ids = fill(archive, talks, space)
        passing = [id_ for id_, talk in zip(ids, talks, strict=True) if brute_force(talk, where)]
        wanted = unit(rng, DIMENSION)
        semantic = find(archive, word, vector=wanted, space=space, mode="semantic", filter=Filter(where), limit=5)
        cosine = {id_: float(talks[id_ - 1].vectors[0] @ wanted) for id_ in passing}
        assert names(semantic) == sorted(passing, key=lambda id_: -cosine[id_])[:5]
        everything = find(archive, word, mode="keyword", limit=100)
        keyword = find(archive, word, mode="keyword", filter=Filter(where), limit=100)
        assert names(keyword) == [id_ for id_ in names(everything) if id_ in passing]
        hybrid = find(archive, word, vector=wanted, space=space, filter=Filter(where), limit=100)
        assert sorted(names(hybrid)) == sorted(passing)


SHARES = [0.5, 0.1, 0.01, 0.001]
Chosen = dict[str, set[int]]


@pytest.fixture(scope="module")
def selections(
    catalogues: Catalogues, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Archive, Space, list[np.ndarray[Any, Any]], np.ndarray[Any, Any], Chosen]]:
    """Many passages with their vectors, a query, and shares of them whose metadata says so: drawn at random, or those
    furthest from the query."""
    with (
        catalogues.at(tmp_path_factory.mktemp("selections") / "archive") as home,
        closing(open_archive(home, create=True)) as opened,
    ):
        space, rng = text_space(opened, DIMENSION), np.random.default_rng(1)
        wanted, count = unit(rng, DIMENSION), 300 if opened.settings.database_url else 1200  # a server takes its time
        vectors = [unit(rng, DIMENSION) for _ in range(count)]
        orders = {"random": rng.permutation(count), "anticorrelated": np.argsort([float(v @ wanted) for v in vectors])}
        chosen = {
            f"{name} {share}": {int(i) + 1 for i in order[: max(1, int(count * share))]}
            for name, order in orders.items()
            for share in SHARES
        }
        marks = [{key: "in" if i in ids else "out" for key, ids in chosen.items()} for i in range(1, count + 1)]
        talks = [
            Talk([f"the budget of day {i}"], mark, vectors=[vector])
            for i, (mark, vector) in enumerate(zip(marks, vectors, strict=True))
        ]
        assert fill(opened, talks, space) == list(range(1, count + 1))
        opened.index.catch_up(space)
        yield opened, space, vectors, wanted, chosen


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("drawn", ["random", "anticorrelated"])
def test_selective_filters_never_starve_a_search(selections: Any, share: float, drawn: str) -> None:
    """With the filter on the vectors furthest from the query, nothing near it passes: all must still be found."""
    archive, space, vectors, wanted, chosen = selections
    key = f"{drawn} {share}"
    expected = sorted(chosen[key], key=lambda id_: (-float(vectors[id_ - 1] @ wanted), id_))[:10]
    passing = Filter({key: "in"})
    assert names(find(archive, "", vector=wanted, space=space, mode="semantic", filter=passing)) == expected
    words = find(archive, "budget", mode="keyword", filter=passing, limit=len(vectors))
    assert sorted(names(words)) == sorted(chosen[key])


def test_time_language_and_speaker_filter(archive: Archive) -> None:
    def on(day: int, **rest: Any) -> Talk:
        return Talk(["das budget"], recorded_at=datetime(2026, 11, day, 12, tzinfo=UTC), **rest)

    fill(archive, [on(1), on(2, language="de"), on(3, speakers=["Anna"])])
    assert sorted(names(find(archive, "budget"))) == [1, 2, 3]
    assert names(find(archive, "budget", filter=Filter(since="2026-11-03"))) == [3]
    assert sorted(names(find(archive, "budget", filter=Filter(until="2026-11-02T12:00:00+00:00")))) == [1]
    assert names(find(archive, "budget", filter=Filter(language="de"))) == [2]
    assert names(find(archive, "budget", filter=Filter(speaker="Anna"))) == [3]
    assert names(find(archive, "budget", filter=Filter({"engine": "other"}))) == []
    assert names(find(archive, "budget", filter=Filter({"original_name": "talk1.wav"}))) == [2]
    assert names(find(archive, "budget", filter=Filter({"engine": 3}))) == []
    assert sorted(names(find(archive, "budget", filter=Filter({"duration": {"gte": 60, "lt": 61}})))) == [1, 2, 3]


@pytest.mark.parametrize(
    "where",
    [
        {"a": {"near": 3}},
        {"a": {"gte": "soon"}},
        {"a": {"gte": None}},
        {"a": {"in": 3}},
        {"a": {}},
        {"a": object()},
        {"recorded_at": {"gte": "soon"}},
        {"recorded_at": {"gte": "9999-12-31T23:00:00-12:00"}},
        {"duration": {"gte": "long"}},
        {"audio_id": "one"},
    ],
)
def test_filters_that_mean_nothing_are_refused_by_name(archive: Archive, where: dict[str, Any]) -> None:
    with pytest.raises(InvalidFilter):
        find(archive, "x", filter=Filter(where))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"user": []}, []),
        ({"user": {"in": []}}, []),
        ({"audio_id": []}, []),
        ({"user": {"exists": True, "in": []}}, []),
        ({"number": 2**53}, [2]),
        ({"number": 2**53 + 1}, [3]),
        ({"number": -(2**53) - 1}, [4]),
        ({"number": 2**53 - 1}, [1]),
        ({"number": float(2**53 - 1)}, [1]),
    ],
)
def test_filters_pass_only_what_they_name(archive: Archive, where: dict[str, Any], expected: list[int]) -> None:
    numbers = [2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1]
    fill(archive, [Talk(["the budget"], {"user": "john", "number": n}) for n in numbers])
    assert sorted(names(find(archive, "budget", filter=Filter(where)))) == expected
    with archive.database.read() as connection:
        listed = recordings.select_where(connection, *Filter(where).on_listing())
    assert sorted(recording.id for recording in listed) == expected


def listing(archive: Archive, **where: Any) -> list[int]:
    with archive.database.read() as connection:
        return sorted(r.id for r in recordings.select_where(connection, *Filter(where).on_listing()))


def test_listings_know_a_recording_by_its_latest_version_where_search_follows_none(archive: Archive) -> None:
    fill(archive, [Talk(["one"]), Talk(["two"]), Talk(["three"])])
    with archive.database.write() as connection:
        for audio_id in (2, 3):
            say(connection, audio_id, Talk(["once more"]))
        connection.execute(sql("UPDATE transcripts SET active = false, outcome = 'failed' WHERE audio_file_id = 2"))
        connection.execute(sql("UPDATE transcripts SET outcome = 'engine_unavailable' WHERE id = 4"))
        connection.execute(sql("UPDATE transcripts SET outcome = 'failed' WHERE id = 5"))
    assert listing(archive, outcome="engine_unavailable") == [2]
    assert listing(archive, outcome="failed") == []  # of 2 an earlier version, of 3 one that is not followed
    assert listing(archive, outcome="ok") == [1, 3]


def test_hostile_filters_are_only_text(archive: Archive) -> None:
    fill(archive, [Talk(["the budget"], {"user": "x' OR 1=1 --"})])
    assert names(find(archive, "budget", filter=Filter({"user": "' OR 1=1 --"}))) == []
    assert names(find(archive, "budget", filter=Filter({"user": "x' OR 1=1 --"}))) == [1]
    assert names(find(archive, "budget", filter=Filter({"user'; DROP TABLE metadata; --": 1}))) == []
    assert names(find(archive, "budget")) == [1]


def test_a_deadline_stops_a_search(archive: Archive) -> None:
    space: Space = text_space(archive, DIMENSION)
    rng = np.random.default_rng(2)
    fill(
        archive,
        [Talk(["the budget"] * 40, vectors=[unit(rng, DIMENSION) for _ in range(40)]) for _ in range(50)],
        space,
    )
    with pytest.raises(DeadlineExceeded):
        find(archive, "budget", vector=unit(rng, DIMENSION), space=space, deadline=Deadline.after(0.0))


@pytest.mark.parametrize("exact", [False, True])
def test_many_searches_at_once_wait_for_no_connection_that_another_holds(archive: Archive, exact: bool) -> None:
    space = text_space(archive, DIMENSION)
    wanted = unit(np.random.default_rng(3), DIMENSION)
    fill(archive, [Talk(["the budget"], vectors=[wanted])], space)
    index = ExactIndex(archive.database) if exact else archive.index
    together = threading.Barrier(CROWD)

    def search(_: int) -> int:
        together.wait()
        query = Query("budget", wanted, space, filter=Filter({"duration": {"gt": 1}}))
        return len(run(archive.database, index, query, Deadline.after(60)))

    with ThreadPoolExecutor(CROWD) as pool:
        assert list(pool.map(search, range(CROWD))) == [1] * CROWD


def test_waiting_for_a_connection_ends_with_the_deadline(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as held:
        for _ in range(CROWD):
            held.enter_context(archive.database.engine.connect())
        with pytest.raises(DeadlineExceeded):
            find(archive, "budget", deadline=Deadline.after(0.2))
        monkeypatch.setattr(archive.database.dialect, "patience_seconds", 0.2)
        with pytest.raises(ArchiveBusy):
            find(archive, "budget")
    assert find(archive, "budget").total == 0


# What has no vector yet


def missing(archive: Archive, space: Space) -> int:
    with archive.database.read() as connection:
        return embeddings.missing_in(connection, space)


def test_passages_without_a_vector_are_counted_whichever_space_came_first(archive: Archive) -> None:
    older, newer = text_space(archive, DIMENSION, "older"), text_space(archive, DIMENSION, "newer")
    vector = unit(np.random.default_rng(6), DIMENSION)
    fill(archive, [Talk(["one"], vectors=[vector]), Talk(["two"], vectors=[vector])], newer)
    assert (missing(archive, older), missing(archive, newer)) == (2, 0)
    fill(archive, [Talk(["three", "four"])])
    assert (missing(archive, older), missing(archive, newer)) == (4, 2)
    with archive.database.write() as connection:
        transcripts.activate(connection, say(connection, 3, Talk(["anew"], vectors=[vector]), newer))
    assert (missing(archive, older), missing(archive, newer)) == (3, 0)  # of versions not followed, none is missed
