"""The audit log: what is entered, and that nothing can be done to it unseen."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.audit import Audit, AuditLog, came_from, reads, verify
from audio_storage_system.database import Database
from audio_storage_system.errors import Conflict, Forbidden
from audited import KEYS, actions, note, rows, speech_file
from catalogues import Catalogues, plain_sql

# What is entered


def test_every_change_is_entered_with_who_and_where(kept: AudioStorageSystem, tmp_path: Path) -> None:
    path = speech_file(tmp_path / "a.wav")
    added = kept.add(path, metadata={"user": "john"})
    kept.set_metadata(added, {"user": "jane", "city": "Rome"})
    kept.set_metadata(added, {"city": "Rome"})  # changes nothing
    kept.remove_metadata(added, "user")
    second = kept.generate_transcript(added, activate=False, language="en")
    kept.activate_transcript(second)
    [job] = kept.retranscribe([int(added)])
    kept.jobs.cancel(job.id)
    kept.jobs.retry(job.id)
    kept.jobs.cancel(job.id)
    kept.reindex()
    kept.delete(added)
    done = [one for one in actions(kept) if not one.endswith(".read")]
    assert done == [
        "recording.stored",
        "transcript.made",
        "metadata.set",
        "metadata.removed",
        "transcript.made",
        "transcript.activated",
        "job.cancelled",
        "job.retried",
        "job.cancelled",
        "archive.reindexed",
        "recording.deleted",
    ]
    assert actions(kept, audio_id=int(added), action="recording.") == ["recording.stored", "recording.deleted"]
    entry = kept.audit.list(action="recording.deleted").entries[0]
    assert (entry.principal, entry.principal_id, entry.audio_id) == ("owner", 1, int(added))
    assert entry.origin.startswith("python@") and entry.origin.endswith(f" {os.getpid()}")
    assert kept.audit.verify().ok


def test_every_read_is_entered_within_a_second(kept: AudioStorageSystem, tmp_path: Path, home: Path) -> None:
    audio_id = int(kept.add(speech_file(tmp_path / "a.wav")))
    said = kept.transcripts(audio_id)[0]
    kept.search_similar_audio("secret question", where={"user": "john"})
    kept.context_pack("secret question")
    kept.list_recordings()
    kept.get_recording(audio_id)
    kept.open_audio(audio_id).close()
    kept.get_transcript(said.id)
    kept.segments(said.id)
    kept.export(audio_id, "srt")
    kept.transcribe(tmp_path / "a.wav")
    kept.diff_transcripts(said.id, said.id)
    wanted = [
        "transcript.read",
        "search",
        "context.packed",
        "recordings.listed",
        "recording.read",
        "audio.opened",
        "transcript.read",
        "transcript.read",
        "transcript.exported",
        "sound.transcribed",
        "transcript.read",
        "transcript.read",
    ]
    until = time.monotonic() + 60
    while len(found := [row[0] for row in _reads(home)]) < len(wanted) and time.monotonic() < until:
        time.sleep(0.05)
    assert found == wanted
    search = json.loads(str(_reads(home)[1][1]))
    assert search["keys"] == ["user"] and search["found"] == 0 and search["characters"] == len("secret question")


def _reads(home: Path) -> list[tuple[object, ...]]:
    changes = "('chain.begun', 'recording.stored', 'transcript.made')"
    query = f"SELECT action, CAST(details AS TEXT) FROM audit_log WHERE action NOT IN {changes} ORDER BY id"  # noqa: S608
    return plain_sql(home, query)


def test_no_text_value_name_or_query_is_in_the_log(kept: AudioStorageSystem, tmp_path: Path, home: Path) -> None:
    audio_id = int(kept.add(speech_file(tmp_path / "nightingale.wav"), metadata={"user": "porcupine"}))
    said = kept.export(audio_id, "txt").strip()
    kept.set_metadata(audio_id, {"user": "armadillo"})
    kept.search_similar_audio("hedgehog", where={"user": "armadillo"})
    kept.metadata_history(audio_id)
    kept.delete(audio_id)
    kept.audit.list()
    text = repr(plain_sql(home, "SELECT * FROM audit_log"))
    assert "metadata.set" in text and said
    for word in ("nightingale", "porcupine", "armadillo", "hedgehog", *said.splitlines()):
        assert word not in text


def test_a_change_that_is_rolled_back_is_not_entered_and_leaves_no_gap(log: AuditLog, home: Path) -> None:
    for number in range(6):
        with suppress(ZeroDivisionError), log.database.write() as connection:
            Audit(log).note(connection, "recording.stored", number)
            if number % 2:
                raise ZeroDivisionError
    assert [row[3] for row in rows(home)] == [None, 0, 2, 4]
    assert [row[1] for row in rows(home)] == [0, 1, 2, 3]
    assert verify(log.database, KEYS).ok


def test_a_chain_whose_commit_nobody_knows_of_is_never_used_again(
    log: AuditLog, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(log)
    committed = []

    def lost(connection: object) -> None:
        monkeypatch.undo()
        type(log.database.engine.dialect).do_commit(log.database.engine.dialect, connection)  # type: ignore[arg-type]
        committed.append(True)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), log.database.write() as connection:
        Audit(log).note(connection, "recording.stored", 2)
        monkeypatch.setattr(log.database.engine.dialect, "do_commit", lost)
    note(log, audio_id=3)
    assert committed
    assert len({row[0] for row in rows(home)}) == 2
    assert {2, 3} <= {row[3] for row in rows(home)}
    assert verify(log.database, KEYS).ok


def test_without_keys_there_is_no_log(storage: AudioStorageSystem, tmp_path: Path, home: Path) -> None:
    storage.store_audio_file(speech_file(tmp_path / "a.wav"))
    storage.list_recordings()
    assert not storage.audit.kept
    for call in (storage.audit.list, storage.audit.verify, storage.audit.heads):
        with pytest.raises(Conflict, match="init --audit"):
            call()
    assert rows(home) == []


def test_who_asks_is_entered_and_only_admins_read_the_log(kept: AudioStorageSystem, tmp_path: Path) -> None:
    kept.users.add("john")
    john = kept.as_user("john")
    mine = john.store_audio_file(speech_file(tmp_path / "a.wav"))
    john.set_metadata(mine, {"a": 1})
    entries = kept.audit.list(principal="john").entries
    assert {one.action for one in entries} == {"recording.stored", "metadata.set"}
    for call in (john.audit.list, john.audit.verify, john.audit.heads):
        with pytest.raises(Forbidden):
            call()
    with pytest.raises(Forbidden):
        john.audit.export(io.StringIO())


def test_a_request_names_where_it_comes_from(log: AuditLog, home: Path) -> None:
    with came_from("http:10.0.0.7"):
        note(log)
    note(log)
    origins = [str(row[0]) for row in plain_sql(home, "SELECT origin FROM audit_log WHERE audio_id = 1 ORDER BY id")]
    assert [origin.split("@")[0] for origin in origins] == ["http:10.0.0.7", "python"]


# Chains


def test_threads_that_write_at_once_borrow_a_chain_each(log: AuditLog, home: Path) -> None:
    def work(worker: int) -> None:
        for number in range(20):
            with suppress(ZeroDivisionError), log.database.write() as connection:
                Audit(log).note(connection, "recording.stored", worker)
                Audit(log).note(connection, "metadata.set", worker)
                if number % 5 == 4:
                    raise ZeroDivisionError
            Audit(log).read("search", worker)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    log.flush()
    report = verify(log.database, KEYS)
    assert report.ok, report
    assert report.entries == 6 * (16 * 2 + 20) + report.chains
    assert report.chains <= 7


def test_on_a_server_nobody_waits_for_the_log(log: AuditLog, catalogues: Catalogues, home: Path) -> None:
    if catalogues.name == "sqlite":
        pytest.skip("there is one writer at a time")
    with log.database.write() as one:
        Audit(log).note(one, "recording.stored", 1)
        with log.database.write() as other:
            Audit(log).note(other, "recording.stored", 2)
    assert len({row[0] for row in rows(home)}) == 2
    note(log, audio_id=3)
    assert len({row[0] for row in rows(home)}) == 2
    assert verify(log.database, KEYS).ok


WRITER = """
import sys, threading
from pathlib import Path
from audited import ROOT
from catalogues import open_database
from audio_storage_system.audit import Audit, AuditLog
from audio_storage_system.keys import ArchiveKeys

database = open_database(Path(sys.argv[1]))
log = AuditLog(database, ArchiveKeys("an archive", ROOT))

def work():
    for number in range(int(sys.argv[2])):
        with database.write() as connection:
            name = f"{sys.argv[3]}-{threading.get_ident()}-{number}"
            connection.exec_driver_sql(f"INSERT INTO principals (name, kind) VALUES ('{name}', 'user')")
            Audit(log).note(connection, "recording.stored", number)
        Audit(log).read("search", number)
        print(number, flush=True)

threads = [threading.Thread(target=work) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def writer(home: Path, times: int, name: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", WRITER, str(home), str(times), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)


def test_processes_write_chains_of_their_own(database: Database, home: Path) -> None:
    writers = [writer(home, 15, name) for name in "abc"]
    for one in writers:
        one.communicate()
        assert one.returncode == 0
    report = verify(database, KEYS)
    assert report.ok, report
    assert report.entries == 3 * 2 * 15 * 2 + report.chains


def test_after_a_kill_every_change_has_its_entry_and_the_chains_hold(database: Database, home: Path) -> None:
    one = writer(home, 100_000, "killed")
    assert one.stdout
    for _ in range(25):
        one.stdout.readline()
    one.kill()
    one.communicate()
    assert verify(database, KEYS).ok
    [(made,)] = plain_sql(home, "SELECT count(*) FROM principals WHERE name LIKE 'killed%'")
    [(entered,)] = plain_sql(home, "SELECT count(*) FROM audit_log WHERE action = 'recording.stored'")
    assert made == entered and int(str(made)) >= 25
    log = AuditLog(database, KEYS)
    note(log)
    assert verify(database, KEYS).ok


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_writes_its_own_chain(log: AuditLog, home: Path) -> None:
    note(log)
    Audit(log).read("search", 1)
    child = os.fork() if threading.active_count() <= 2 else -1
    if child == 0:
        code = 1
        with suppress(BaseException):
            note(log, audio_id=2)
            code = 0
        os._exit(code)
    if child < 0:
        pytest.skip("other threads run")
    assert os.waitpid(child, 0)[1] == 0
    note(log, audio_id=3)
    log.flush()
    assert verify(log.database, KEYS).ok
    [(reads,)] = plain_sql(home, "SELECT count(*) FROM audit_log WHERE action = 'search'")
    assert reads == 1
    chain = {row[3]: row[0] for row in rows(home) if row[3] is not None}
    assert chain[2] != chain[3]


# Reads


def test_a_hundred_reads_are_written_at_once(log: AuditLog, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "WITHIN_SECONDS", 60.0)
    until = time.monotonic() + 30
    for number in range(100):
        Audit(log).read("search", number)
    while len(rows(home)) < 101 and time.monotonic() < until:
        time.sleep(0.01)
    assert [row[3] for row in rows(home)] == [None, *range(100)]


def test_reads_wait_while_the_database_takes_no_writes(
    log: AuditLog, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*names: str) -> None:
        raise Conflict(reason="not now")

    monkeypatch.setattr("audio_storage_system.audit.reads.MOST_KEPT", 150)
    monkeypatch.setattr(log.database, "write", refused)
    with log._reads._writing:  # nothing is tried meanwhile
        for number in range(200):
            Audit(log).read("search", number)
    with pytest.raises(Conflict):
        log.flush()
    monkeypatch.delattr(log.database, "write")
    log.flush()
    found = plain_sql(home, "SELECT action, CAST(details AS TEXT) FROM audit_log ORDER BY id")
    lost = [json.loads(str(details))["count"] for action, details in found if action == "reads.lost"]
    assert [action for action, _ in found].count("search") + sum(lost) == 200
    assert sum(lost) == 50
    assert verify(log.database, KEYS).ok


def test_what_was_read_is_written_at_exit(database: Database, home: Path) -> None:
    script = WRITER.split("def work")[0] + 'Audit(log).read("search", 7)\n'
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    subprocess.run([sys.executable, "-c", script, str(home)], env=environment, check=True)
    assert [row[2] for row in rows(home)] == ["chain.begun", "search"]
