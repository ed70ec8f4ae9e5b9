"""Settings and where they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from audio_storage_system.errors import InvalidSetting
from audio_storage_system.settings import Settings, archive_home, destinations, load_settings


def test_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUDIO_STORAGE_BLOB_CACHE_DIR")  # the one setting that every test is given
    assert load_settings(tmp_path) == Settings()


def test_code_beats_environment_beats_archive_beats_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = tmp_path / "config" / "audio-storage"
    user.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (user / "audio-storage.toml").write_text(
        'language = "fr"\ntranscriber = "tiny"\ncompress = "flac"\nsidecars = true'
    )
    (tmp_path / "audio-storage.toml").write_text('language = "de"\ntranscriber = "small"\ncompress = "pcm16"')
    monkeypatch.setenv("AUDIO_STORAGE_LANGUAGE", "es")
    monkeypatch.setenv("AUDIO_STORAGE_TRANSCRIBER", "medium")
    settings = load_settings(tmp_path, language="en")
    assert (settings.language, settings.transcriber, settings.compress, settings.sidecars) == (
        "en",
        "medium",
        "pcm16",
        True,
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense = 1", "there are: transcriber"),
        ("combined_weight = 'heavy'", "combined_weight"),
        ("not toml at all", "audio-storage.toml"),
        ("compress = 'mp3'", "flac"),
        ("backup_destinations = '/mnt/backups'", "name=place"),
        ("backup_destinations = 'a/b=/mnt/backups'", "name=place"),
        ("backup_destinations = 'disk='", "name=place"),
        ("backup_destinations = 'disk=/a, disk=/b'", "stands there once"),
    ],
)
def test_a_wrong_file_is_refused_with_its_reason(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "audio-storage.toml").write_text(content)
    with pytest.raises(InvalidSetting, match=message):
        load_settings(tmp_path)


def test_a_wrong_boolean_in_the_environment_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_SIDECARS", "perhaps")
    with pytest.raises(InvalidSetting, match="neither true nor false"):
        load_settings(tmp_path)


def test_the_home_of_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert archive_home() == tmp_path / "audio_storage"
    monkeypatch.setenv("AUDIO_STORAGE_HOME", str(tmp_path / "elsewhere"))
    assert archive_home() == tmp_path / "elsewhere"
    assert archive_home("here") == tmp_path / "here"


def test_the_places_for_backups_have_names() -> None:
    assert destinations(Settings()) == {}
    found = destinations(Settings(backup_destinations=" disk=/mnt/a=b ,off-site = s3://bucket/prefix?region=x,"))
    assert found == {"disk": "/mnt/a=b", "off-site": "s3://bucket/prefix?region=x"}
