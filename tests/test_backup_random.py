"""Whatever is done to an archive between its backups: any set restores to what it was then, less what was deleted
since."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from audio_storage_system import AudioStorageSystem, restore_backup
from audio_storage_system.backup import creating
from backing import Place, rows
from copying import answers, scripted, sound
from postgres_server import Server

Home = Callable[[Path], AbstractContextManager[Place]]
# So small that a few recordings fill several.
WINDOWS = {"segments": 2, "passages": 3, "embeddings": 4, "transcription_windows": 2, "metadata": 3, "audio_files": 2}
OF_RECORDINGS = ("audio_files", "metadata", "transcripts", "segments", "passages", "embeddings")


class BackupMachine(RuleBasedStateMachine):
    """An archive that lives, and its backups."""

    def __init__(self, home: Home) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.home = self.stack.enter_context(home(self.folder / "archive"))
        self.dest = self.folder / "backup"
        self.storage = self.stack.enter_context(AudioStorageSystem(self.home, transcriber="scripted"))
        self.states: dict[str, dict[str, Any]] = {}

    @property
    def ids(self) -> list[int]:
        return sorted(recording.id for recording in self.storage.list_recordings())

    def one(self, choice: int) -> int:
        return self.ids[choice % len(self.ids)]

    @rule(seed=st.integers(0, 12), transcribe=st.booleans())
    def add(self, seed: int, transcribe: bool) -> None:
        path = sound(self.folder / f"{seed}.wav", seed)
        if transcribe:
            self.storage.add(path, metadata={"seed": seed})
        else:
            self.storage.store_audio_file(path, metadata={"seed": seed})

    @precondition(lambda self: self.ids)
    @rule(choice=st.integers(0, 99))
    def delete(self, choice: int) -> None:
        self.storage.delete(self.one(choice))

    @precondition(lambda self: self.ids)
    @rule(
        choice=st.integers(0, 99), key=st.sampled_from("abc"), value=st.one_of(st.integers(), st.text("xyz"), st.none())
    )
    def describe(self, choice: int, key: str, value: Any) -> None:
        if value is None:
            self.storage.remove_metadata(self.one(choice), key)
        else:
            self.storage.set_metadata(self.one(choice), {key: value})

    @precondition(lambda self: self.ids)
    @rule(choice=st.integers(0, 99), name=st.sampled_from(["one", "two"]))
    def transcribe(self, choice: int, name: str) -> None:
        self.storage.generate_transcript(self.one(choice), whisper_model=f"scripted:{name}")

    @precondition(lambda self: self.ids)
    @rule(choice=st.integers(0, 99), version=st.integers(0, 9))
    def activate(self, choice: int, version: int) -> None:
        if versions := self.storage.transcripts(self.one(choice)):
            self.storage.activate_transcript(versions[version % len(versions)].id)

    @rule(full=st.booleans())
    def back_up(self, full: bool) -> None:
        report = self.storage.backups.create(self.dest, full=full)
        assert report.complete and self.storage.backups.verify(self.dest).whole
        self.states[report.set_id] = rows(self.home)

    @precondition(lambda self: self.states)
    @rule(keep=st.integers(1, 4))
    def prune(self, keep: int) -> None:
        report = self.storage.backups.prune(self.dest, keep_last=keep)
        for decision in report.decisions:
            if not decision.keep:
                del self.states[decision.set_id]

    @precondition(lambda self: self.states)
    @rule(choice=st.integers(0, 99))
    def restore(self, choice: int) -> None:
        set_id = sorted(self.states)[choice % len(self.states)]
        place = self.folder / uuid4().hex
        report = restore_backup(str(self.dest), str(place), set_id=set_id)
        assert report.complete
        last = self.states[max(self.states)]
        self.check(self.states[set_id], rows(place), {grave[0] for grave in last["tombstones"]})
        shutil.rmtree(place)

    def check(self, then: dict[str, Any], now: dict[str, Any], buried: set[int]) -> None:
        """The same rows, except for those of recordings that the newest set knows to be deleted."""
        for name in OF_RECORDINGS:
            left = [row for row in then[name] if row in now[name]]
            assert left == now[name], name
        lost = {row[0] for row in then["audio_files"]} - {row[0] for row in now["audio_files"]}
        assert lost == {row[0] for row in then["audio_files"]} & buried
        if not lost:
            assert {name: now[name] for name in then if name != "tombstones"} == {
                name: then[name] for name in then if name != "tombstones"
            }
        assert {grave[0] for grave in now["tombstones"]} == buried

    def teardown(self) -> None:
        try:
            self.back_up(False)
            self.storage.close()
            place = self.folder / "last"
            assert restore_backup(str(self.dest), str(place)).complete
            assert rows(place) == rows(self.home) and answers(place) == answers(self.home)
        finally:
            self.stack.close()
            shutil.rmtree(self.folder, ignore_errors=True)


def run(home: Home, examples: int, patch: Any) -> None:
    patch.setattr(creating, "WINDOWS", WINDOWS)
    wanted = settings(
        max_examples=examples, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
    )
    with scripted():
        run_state_machine_as_test(lambda: BackupMachine(home), settings=wanted)


def test_any_history_of_a_folder_comes_back(monkeypatch: Any) -> None:
    @contextmanager
    def folder(home: Path) -> Any:
        yield home

    run(folder, 3, monkeypatch)


def test_any_history_on_a_server_comes_back(postgres_server: Server, monkeypatch: Any) -> None:
    @contextmanager
    def server(home: Path) -> Any:
        home.mkdir()
        with postgres_server.fresh_database() as url:
            (home / "audio-storage.toml").write_text(f'database_url = "{url}"')
            yield home / "audio-storage.toml"

    run(server, 2, monkeypatch)
