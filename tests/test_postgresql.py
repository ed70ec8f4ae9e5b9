"""An archive on PostgreSQL: many at once, late commits, and what can go wrong with a server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.catalogue import locks
from audio_storage_system.cli import main
from audio_storage_system.errors import (
    ArchiveBusy,
    ArchiveMismatch,
    ArchiveNotFound,
    AudioStorageSystemError,
    DatabaseRefused,
    DatabaseUnavailable,
    DeadlineExceeded,
    InvalidSetting,
    MissingExtension,
    NewerFormat,
    NotFound,
)
from catalogues import Catalogues, database_url, plain_sql
from postgres_server import Programs, Server, reserved_port, started

pytestmark = pytest.mark.usefixtures("scripted_engine")


@pytest.fixture
def home(postgres_server: Server, postgres_template: str, tmp_path: Path) -> Iterator[Path]:
    with Catalogues(postgres_server, postgres_template).at(tmp_path / "archive") as home:
        yield home


@contextmanager
def client(home: Path) -> Iterator[AudioStorageSystem]:
    """Another process, as far as the database can tell."""
    with AudioStorageSystem(home, transcriber="scripted") as opened:
        yield opened


def test_an_archive_in_an_empty_database_finds_what_is_said(
    postgres_url: str, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_HOME", str(tmp_path / "here"))
    with pytest.raises(ArchiveNotFound, match="init"):
        AudioStorageSystem(postgres_url, create=False)
    with AudioStorageSystem(postgres_url) as storage:
        audio_id = storage.add(demo / "call.flac", whisper_model="pocketsphinx", metadata={"user": "john"})
        hits = storage.search_similar_audio("my heating is broken", where={"user": "john"})
        assert hits[0].audio_id == audio_id
        assert storage.search_similar_audio("heating", until="2000-01-01").total == 0


# Many at once


def check_whole(home: Path) -> None:
    """Whatever happened at once: every derived row has what it derives from, and the other way round, once."""
    with client(home) as last:
        last._archive.follow()
    assert plain_sql(home, "SELECT owner_id, file_hash FROM audio_files GROUP BY 1, 2 HAVING count(*) > 1") == []
    said = plain_sql(home, "SELECT id FROM passages ORDER BY 1")
    assert plain_sql(home, "SELECT passage_id FROM passage_search WHERE space_id = 0 ORDER BY 1") == said
    vectors = plain_sql(home, "SELECT id FROM embeddings ORDER BY 1")
    assert plain_sql(home, "SELECT embedding_id FROM passage_search WHERE space_id > 0 ORDER BY 1") == vectors
    active = "SELECT audio_file_id, count(*) FROM transcripts WHERE active GROUP BY 1"
    assert all(count == 1 for _, count in plain_sql(home, active))
    paths = {str(path) for [path] in plain_sql(home, "SELECT file_path FROM audio_files")}
    files = {path.relative_to(home).as_posix() for path in (home / "audio_files").rglob("*") if path.is_file()}
    assert files == paths


def test_clients_add_delete_and_search_at_once(home: Path, demo: Path) -> None:
    files = sorted(demo.glob("*.flac"))
    with ExitStack() as opened:
        clients = [opened.enter_context(client(home)) for _ in range(3)]

        def work(number: int) -> None:
            storage = clients[number % len(clients)]
            for turn in range(2):
                audio_id = storage.add(files[(number + turn) % len(files)], metadata={f"key{number}": turn})
                storage.search_similar_audio("spoken", where={f"key{number}": turn})
                if (number + turn) % 3 == 0:
                    try_to(storage.delete, audio_id)

        def try_to(act: object, audio_id: int) -> None:
            try:
                act(audio_id)  # type: ignore[operator]
            except NotFound:
                pass  # deleted by another in the meantime

        def attempt(number: int) -> None:
            try:
                work(number)
            except NotFound:
                pass  # what it worked on was deleted under its hands: said so, and nothing of it left

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(attempt, range(6)))
        for path in files:
            clients[0].add(path)
        clients[0].search_similar_audio("spoken")
        assert len(clients[1].list_recordings()) == len(files)
    check_whole(home)


def test_processes_transcribing_one_recording_make_one_version(home: Path, demo: Path) -> None:
    code = (
        "import sys; from audio_storage_system import AudioStorageSystem as A;"
        "from audio_storage_system.testing import scripted; from audio_storage_system.transcribers import TRANSCRIBERS;"
        "TRANSCRIBERS.builtin[scripted.SPEC] = scripted.FACTORY;"
        "print(int(A(sys.argv[1]).generate_transcript(1, whisper_model='scripted')))"
    )
    with client(home) as storage:
        assert storage.store_audio_file(demo / "call.flac") == 1
        command = [sys.executable, "-W", "ignore", "-c", code, str(home)]
        children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        answers = {child.communicate()[0].strip() for child in children}
        versions = storage.transcripts(1)
        assert answers == {str(version.id) for version in versions if version.outcome == "ok"}
        assert [version.active for version in versions].count(True) == 1
        for version in versions:
            sequences = plain_sql(home, "SELECT sequence FROM segments WHERE transcript_id = ? ORDER BY 1", version.id)
            assert [number for [number] in sequences] == list(range(len(sequences)))


def test_what_is_written_under_one_name_waits_and_other_names_do_not(storage: AudioStorageSystem) -> None:
    database, order = storage._archive.database, []
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with database.write(locks.of_recording(1)):
            held.set()
            assert done.wait(60)
            order.append("first")

    def follow() -> None:
        with database.write(locks.of_recording(1)):
            order.append("second")

    threads = [threading.Thread(target=hold), threading.Thread(target=follow)]
    threads[0].start()
    assert held.wait(60)
    threads[1].start()
    with database.write(locks.of_recording(2)):
        order.append("other")
    done.set()
    for thread in threads:
        thread.join()
    assert order == ["other", "first", "second"]


def test_what_is_committed_late_is_found_and_indexed(storage: AudioStorageSystem, demo: Path) -> None:
    """A transaction with the lowest ids commits last: no reader may have gone past it."""
    call, meeting = storage.store_audio_file(demo / "call.flac"), storage.add(demo / "meeting.flac")
    with client(storage.home) as other:
        transcript = other.generate_transcript(call)
        begun, go_on = threading.Event(), threading.Event()
        embed = storage._archive.database.write

        @contextmanager
        def slowly(*names: str) -> Iterator[object]:
            with embed(*names) as connection:
                yield connection
                begun.set()
                go_on.wait(20)

        late = threading.Thread(target=lambda: storage.generate_embeddings(call, transcript))
        storage._archive.database.write = slowly  # type: ignore[method-assign, assignment]
        try:
            late.start()
            assert begun.wait(20)
            other.add(demo / "voice_note.flac")  # ids beyond those still held back, committed and indexed first
            assert {hit.audio_id for hit in other.search_similar_audio("spoken", limit=100)} >= {meeting}
        finally:
            storage._archive.database.write = embed  # type: ignore[method-assign]
            go_on.set()
            late.join()
        hits = other.search_similar_audio("spoken", mode="semantic", limit=100)
        assert call in {hit.audio_id for hit in hits}
        other.add(demo / "call.flac")  # nothing new: but the index follows
        assert all(state.indexed == state.total for state in other.reindex().values())
    check_whole(storage.home)


def test_deleting_while_the_full_text_is_made_anew_leaves_no_ghosts(storage: AudioStorageSystem, demo: Path) -> None:
    ids = [storage.add(path) for path in sorted(demo.glob("*.flac"))]
    with client(storage.home) as other, ThreadPoolExecutor(2) as pool:
        rebuilt = pool.submit(lambda: [other.reindex() for _ in range(3)])
        deleted = pool.submit(lambda: [storage.delete(audio_id) for audio_id in ids[:2]])
        rebuilt.result(), deleted.result()
        assert {hit.audio_id for hit in other.search_similar_audio("spoken", limit=100)} == {ids[2]}
        other._archive.follow()
    check_whole(storage.home)


# What goes wrong


def said(error: BaseException) -> str:
    """What a traceback says, but for the lines of code in it: the message of every error on the way."""
    told = traceback.TracebackException.from_exception(error)
    lines = []
    while told is not None:
        lines += list(told.format_exception_only())
        told = told.__cause__ or told.__context__
    return "".join(lines)


def test_a_server_that_is_down_is_said_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_HOME", str(tmp_path / "a"))
    begun = time.monotonic()
    with reserved_port() as port, pytest.raises(DatabaseUnavailable, match="Check that it runs") as caught:
        AudioStorageSystem(f"postgresql://user:secret@127.0.0.1:{port}/db")
    assert time.monotonic() - begun < 15 and caught.value.retryable
    assert "secret" not in said(caught.value)


def test_wrong_passwords_and_databases_are_refused(
    postgres_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_HOME", str(tmp_path / "a"))
    good = postgres_server.url("no_such_database")
    for url in (good, good.replace(postgres_server.password, "secret")):
        with pytest.raises(DatabaseRefused, match=r"password|does not exist") as caught:
            AudioStorageSystem(url)
        assert "secret" not in said(caught.value) and postgres_server.password not in said(caught.value)


@pytest.mark.parametrize(
    "url",
    ["postgresql://u:secret@host:port/db", "postgresql://u:se/secret@host/db", "postgresql://u:secret@[bad/db"],
)
def test_an_address_that_is_none_is_refused_without_its_password(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_HOME", str(tmp_path / "a"))
    with pytest.raises((InvalidSetting, DatabaseUnavailable)) as caught:
        AudioStorageSystem(url)
    assert "secret" not in said(caught.value)


def test_the_password_is_shown_nowhere(
    storage: AudioStorageSystem,
    postgres_server: Server,
    demo: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    storage.add(demo / "call.flac")
    url, home = database_url(storage.home), str(storage.home)
    for command in (
        ["stats", "--archive", home, "--json"],
        ["doctor", "--archive", home],
        ["search", "x", "--archive", url],
    ):
        main_quietly(command)
    with pytest.raises(NotFound):
        storage.delete(10**6)
    shown = capsys.readouterr()
    index = storage._archive.index
    everything = [shown.out, shown.err, caplog.text, index.name, str(storage.stats()), repr(storage._archive.database)]
    everything += [repr(storage._archive.database.engine), str(plain_sql(storage.home, "SELECT * FROM index_cursors"))]
    assert all(postgres_server.password not in text for text in everything)


def main_quietly(arguments: list[str]) -> None:
    try:
        main(arguments)
    except SystemExit:
        pass


def test_a_server_that_stops_in_mid_work_loses_nothing(demo: Path, tmp_path: Path) -> None:
    with started() as server, server.fresh_database() as url:
        home, programs = tmp_path / "a", Programs.found()
        home.mkdir()
        (home / "audio-storage.toml").write_text(f"database_url = {json.dumps(url)}\n")
        with AudioStorageSystem(home, transcriber="scripted") as storage:
            first = storage.add(demo / "call.flac")
            assert server.folder is not None
            programs.stop(server.folder, "immediate")
            for _ in range(2):
                with pytest.raises(DatabaseUnavailable, match="does not answer"):
                    storage.add(demo / "meeting.flac")
                with pytest.raises(DatabaseUnavailable):
                    storage.search_similar_audio("spoken")
            programs.start(server.folder, server.port)
            assert storage.search_similar_audio("spoken")[0].audio_id == first
            storage.add(demo / "meeting.flac")
            assert len(storage.list_recordings()) == 2
            cut_off(server)
            storage.add(demo / "voice_note.flac")  # with connections that were closed meanwhile
        with AudioStorageSystem(home, transcriber="scripted") as again:
            assert len(again.list_recordings()) == 3
        check_whole(home)


def cut_off(server: Server) -> None:
    """End every client's connection, as a restart or a firewall does."""
    server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 't_%'")


@contextmanager
def role(server: Server, url: str, *grants: str) -> Iterator[str]:
    """The address of the same database for a new user with these rights."""
    name = f"r_{uuid4().hex[:8]}"
    server.run(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    try:
        for grant in grants:
            plain_statement(url, grant.format(name))
        yield url.replace(f"{server.user}:{server.password}", f"{name}:secret")
    finally:
        plain_statement(url, f"DROP OWNED BY {name}")
        server.run(f"DROP ROLE {name}")


def plain_statement(url: str, statement: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def test_without_pgvector_it_is_said_who_can_add_it(
    postgres_server: Server, postgres_url: str, tmp_path: Path, demo: Path
) -> None:
    home = tmp_path / "a"
    home.mkdir()
    with role(postgres_server, postgres_url, "GRANT ALL ON SCHEMA public TO {}") as url:
        (home / "audio-storage.toml").write_text(f"database_url = {json.dumps(url)}\n")
        with pytest.raises(MissingExtension, match="CREATE EXTENSION vector"):
            AudioStorageSystem(home, transcriber="scripted")
        plain_statement(postgres_url, "CREATE EXTENSION vector")
        with AudioStorageSystem(home, transcriber="scripted") as storage:
            assert storage.search_similar_audio("spoken").total == 0
            storage.add(demo / "call.flac")
            assert storage.search_similar_audio("spoken").hits


def test_a_user_who_may_only_read_can_search(storage: AudioStorageSystem, postgres_server: Server, demo: Path) -> None:
    storage.add(demo / "call.flac")
    url = database_url(storage.home)
    with role(postgres_server, url, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}") as reader:
        with AudioStorageSystem(storage.home, database_url=reader, transcriber="scripted") as other:
            assert other.search_similar_audio("spoken").hits
            with pytest.raises(DatabaseRefused, match="permission denied"):
                other.add(demo / "meeting.flac")
            with pytest.raises(DatabaseRefused):
                other.delete(1)
        assert len(storage.list_recordings()) == 1
    check_whole(storage.home)


def test_a_database_of_another_program_or_a_later_version_is_refused(
    postgres_url: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_HOME", str(tmp_path / "other"))
    plain_statement(postgres_url, "CREATE TABLE metadata (id integer)")
    with pytest.raises(ArchiveMismatch, match="another program"):
        AudioStorageSystem(postgres_url)
    plain_statement(postgres_url, "ALTER TABLE metadata RENAME TO other")
    plain_statement(postgres_url, "CREATE TABLE alembic_version (version_num text)")
    plain_statement(postgres_url, "INSERT INTO alembic_version VALUES ('ab12')")
    with pytest.raises(ArchiveMismatch, match="another program"):
        AudioStorageSystem(postgres_url)
    plain_sql(home, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(NewerFormat):
        AudioStorageSystem(home)


def test_blobs_elsewhere_are_refused(storage: AudioStorageSystem, tmp_path: Path, home: Path) -> None:
    url = database_url(home)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "audio-storage.toml").write_text(f"database_url = {json.dumps(url)}\n")
    with pytest.raises(ArchiveMismatch, match="AUDIO_STORAGE_BLOBS_URL"):  # another machine's folder is empty here
        AudioStorageSystem(elsewhere)
    AudioStorageSystem(tmp_path / "another").close()
    shutil.copy(tmp_path / "another/metadata.json", elsewhere)
    with pytest.raises(ArchiveMismatch, match="belong to archive"):
        AudioStorageSystem(elsewhere)


def test_a_pool_in_use_is_waited_for_until_its_time_or_the_deadline(home: Path) -> None:
    with AudioStorageSystem(home, pool_size=1, pool_overflow=0, pool_timeout=0.5) as storage:
        storage.search_similar_audio("x")  # the embedder is there
        with storage._archive.database.read():
            with pytest.raises(ArchiveBusy):
                storage.list_recordings()
            with pytest.raises(DeadlineExceeded):
                storage.search_similar_audio("x", mode="keyword", deadline=0.1)
        assert storage.list_recordings() == []


def test_an_error_in_a_transaction_gives_its_connection_back(home: Path) -> None:
    with AudioStorageSystem(home, pool_size=1, pool_overflow=0, pool_timeout=2) as storage:
        for _ in range(5):
            with pytest.raises(AudioStorageSystemError):
                storage.get_recording(2**70)
        assert storage.list_recordings() == []


@pytest.mark.parametrize(("threshold", "prepared"), [("none", False), ("0", True)])
def test_statements_are_prepared_as_the_address_says(home: Path, threshold: str, prepared: bool) -> None:
    url = f"{database_url(home)}?prepare_threshold={threshold}"
    with AudioStorageSystem(home, database_url=url) as storage:
        storage.list_recordings()
        with storage._archive.database.read() as connection:
            found = connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar_one()
    assert (found > 0) is prepared


def test_a_threshold_that_is_none_of_these_is_refused(home: Path) -> None:
    with pytest.raises(InvalidSetting, match="number"):
        AudioStorageSystem(home, database_url=f"{database_url(home)}?prepare_threshold=often")


def test_several_may_find_no_archive_and_make_it_at_once(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_HOME", str(tmp_path / "here"))

    def open_it(_: int) -> str:
        with AudioStorageSystem(postgres_url) as storage:
            return str(storage.stats()["archive_id"])

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(open_it, range(4)))) == 1
