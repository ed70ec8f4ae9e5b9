"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest

import audio_storage_system
from audio_storage_system.testing import scripted
from audio_storage_system.transcribers import TRANSCRIBERS

pytest_plugins = ["postgres_server", "catalogues"]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No setting of the developer's own machine reaches a test, and no model hub is asked for anything."""
    for name in list(os.environ):
        if name.startswith(("AUDIO_STORAGE_", "OPENAI_")) and not name.startswith("AUDIO_STORAGE_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "config"))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real recordings and texts; what needs it is skipped where there is none."""
    folder = os.environ.get("AUDIO_STORAGE_TEST_DATA")
    if not folder:
        pytest.skip("AUDIO_STORAGE_TEST_DATA is not set: no real recordings to test with")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def demo() -> Path:
    """The folder of the recordings that come with the package: speech that is there on every machine."""
    return Path(audio_storage_system.__file__).parent / "demo"


@pytest.fixture
def scripted_engine(monkeypatch: pytest.MonkeyPatch) -> type[scripted.ScriptedTranscriber]:
    """The engine `scripted`, known for the time of the test."""
    monkeypatch.setitem(cast(dict[str, str], TRANSCRIBERS.builtin), scripted.SPEC, scripted.FACTORY)
    monkeypatch.setattr(scripted.ScriptedTranscriber, "before", None)
    return scripted.ScriptedTranscriber
