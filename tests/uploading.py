"""Uploads, for tests: files to send, and an archive that takes them."""

from __future__ import annotations

import io
import random
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from audio_storage_system import AudioStorageSystem
from audio_storage_system.uploads import Appending, UploadFolder
from catalogues import Catalogues


def sound(seconds: float = 1.0, seed: int = 0) -> bytes:
    """A WAV file of noise."""
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setparams((1, 2, 16_000, 0, "NONE", ""))
        wav.writeframes(random.Random(seed).randbytes(int(seconds * 16_000) * 2))
    return file.getvalue()


WAV = sound()


@contextmanager
def taking_uploads(home: Path, *, sealed: bool) -> Iterator[AudioStorageSystem]:
    """An archive, encrypted or not, and who is in it."""
    with Catalogues(encrypted=sealed).at(home) as home, AudioStorageSystem(home) as opened:
        opened.users.add("ann")
        opened.users.add("ben")
        yield opened


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for the lock of an upload waits as long as a busy machine may take."""
    for function in (UploadFolder.lock, UploadFolder.locked.__wrapped__):  # type: ignore[attr-defined]
        monkeypatch.setattr(function, "__defaults__", (60.0,))


@pytest.fixture
def arrived(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How much of each upload, by its id, servers have taken."""
    sizes, write = dict[str, int](), Appending.write

    def noted(self: Appending, data: bytes) -> None:
        write(self, data)
        sizes[self._folder.id] = self.offset

    monkeypatch.setattr(Appending, "write", noted)
    return sizes


@pytest.fixture
def emptied(request: pytest.FixtureRequest) -> Iterator[None]:
    """No uploads are left to the next test."""
    yield
    if "archive" in request.fixturenames:
        opened = request.getfixturevalue("archive")
        for view in (opened, opened.as_user("ann"), opened.as_user("ben")):
            for upload in view.uploads.list():
                view.uploads.abort(upload.id)


def content_of(storage: AudioStorageSystem, audio_id: int | None) -> bytes:
    with storage.open_audio(audio_id or 0) as file:
        return file.read()


def folder_of(storage: AudioStorageSystem, upload_id: str, whose: int = 1) -> Path:
    return storage.home / "spool" / "uploads" / str(whose) / upload_id
