"""Whatever is done to an archive between two copies, and wherever a copy breaks off: the next one makes them equal."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from audio_storage_system import AudioStorageSystem, copy_archive
from audio_storage_system.catalogue import recordings
from audio_storage_system.transfer import CopyProgress
from copying import Place, answers, content, scripted, sound
from postgres_server import Server

Destination = Callable[[Path], AbstractContextManager[Place]]
FUNCTIONS: dict[str, Callable[[str], list[float]]] = {
    "vowels": lambda text: [1.0 + text.count(letter) for letter in "aeiou"],
    "words": lambda text: [1.0 + len(text.split()), 1.0],
}


class Broken(Exception):
    pass


class CopyMachine(RuleBasedStateMachine):
    """An archive that lives, and its copy."""

    def __init__(self, destination: Destination) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.destination = self.stack.enter_context(destination(self.folder / "copy"))
        self.source = self.folder / "original"
        self.storage = self.stack.enter_context(AudioStorageSystem(self.source, transcriber="scripted"))

    @property
    def ids(self) -> list[int]:
        return sorted(recording.id for recording in self.storage.list_recordings())

    def one(self, choice: int) -> int:
        return self.ids[choice % len(self.ids)]

    @rule(seed=st.integers(0, 12), transcribe=st.booleans(), embed=st.booleans())
    def add(self, seed: int, transcribe: bool, embed: bool) -> None:
        path = sound(self.folder / f"{seed}.wav", seed)
        if transcribe:
            self.storage.add(path, metadata={"seed": seed}, generate_embeddings=embed)
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
    @rule(choice=st.integers(0, 99), name=st.sampled_from(["one", "two"]), activate=st.sampled_from([None, False]))
    def transcribe(self, choice: int, name: str, activate: bool | None) -> None:
        self.storage.generate_transcript(self.one(choice), whisper_model=f"scripted:{name}", activate=activate)

    @precondition(lambda self: self.ids)
    @rule(choice=st.integers(0, 99), version=st.integers(0, 9))
    def activate(self, choice: int, version: int) -> None:
        if versions := self.storage.transcripts(self.one(choice)):
            self.storage.activate_transcript(versions[version % len(versions)].id)

    @precondition(lambda self: self.ids)
    @rule(choice=st.integers(0, 99), text=st.sampled_from(["quiet", "clipped"]))
    def warn(self, choice: int, text: str) -> None:
        with self.storage._archive.database.write() as connection:
            recordings.warn(connection, self.one(choice), [text])

    @precondition(lambda self: self.ids)
    @rule(choice=st.integers(0, 99), name=st.sampled_from(sorted(FUNCTIONS)))
    def embed_otherwise(self, choice: int, name: str) -> None:
        self.storage.use_embedder(FUNCTIONS[name], name=name)
        if versions := self.storage.transcripts(self.one(choice)):
            self.storage.generate_embeddings(self.one(choice), versions[-1].id)

    @rule(steps=st.integers(0, 12))
    def copy_in_part(self, steps: int) -> None:
        left = [None] * steps

        def break_off(_: CopyProgress) -> None:
            if not left:
                raise Broken
            left.pop()

        try:
            copy_archive(self.source, self.destination, progress=break_off)
        except Broken:
            pass

    @rule()
    def copy(self) -> None:
        assert copy_archive(self.source, self.destination).complete
        assert content(self.destination) == content(self.source)
        assert copy_archive(self.source, self.destination).rows_copied == 0

    def teardown(self) -> None:
        try:
            self.copy()
            self.storage.close()
            assert answers(self.destination) == answers(self.source)
        finally:
            self.stack.close()
            shutil.rmtree(self.folder, ignore_errors=True)


def run(destination: Destination, examples: int) -> None:
    wanted = settings(
        max_examples=examples, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
    )
    with scripted():
        run_state_machine_as_test(lambda: CopyMachine(destination), settings=wanted)


def test_any_history_is_copied_into_a_folder() -> None:
    @contextmanager
    def folder(home: Path) -> Any:
        yield home

    run(folder, 6)


def test_any_history_is_copied_onto_a_server(postgres_server: Server) -> None:
    @contextmanager
    def server(home: Path) -> Any:
        home.mkdir()
        with postgres_server.fresh_database() as url:
            (home / "audio-storage.toml").write_text(f'database_url = "{url}"')
            yield home / "audio-storage.toml"

    run(server, 4)
