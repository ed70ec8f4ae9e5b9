"""Keys: where they come from, what is refused, how they are replaced."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keyring
import pytest
from cryptography.fernet import Fernet
from keyring.backend import KeyringBackend

from audio_storage_system import AudioStorageSystem
from audio_storage_system.cli import main
from audio_storage_system.errors import (
    ArchiveDamaged,
    Conflict,
    InvalidInput,
    InvalidSetting,
    KeyMissing,
    KeyRefused,
    NotFound,
    SealBroken,
)
from audio_storage_system.keys import KeySource
from sounds import tone, wav

pytestmark = pytest.mark.usefixtures("scripted_engine")
KEY = bytes(range(32))
OTHER = bytes(reversed(range(32)))


@pytest.fixture(autouse=True)
def _no_keys_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("audio_storage_system.keys.sources.user_config_path", lambda name: tmp_path / "config" / name)
    for name in ("KEY", "KEY_FILE", "KEY_SOURCE", "PASSPHRASE"):
        monkeypatch.delenv(f"AUDIO_STORAGE_{name}", raising=False)


def opened(home: Path, **settings: Any) -> AudioStorageSystem:
    return AudioStorageSystem(home, transcriber="scripted", **settings)


def sound(tmp_path: Path, hertz: float = 440.0) -> Path:
    path = tmp_path / f"{hertz:.0f}.wav"
    path.write_bytes(wav(tone(0.5, hertz)))
    return path


def files(home: Path) -> dict[str, bytes]:
    """Everything below a folder; SQLite's log comes and goes."""
    return {str(file): file.read_bytes() for file in home.rglob("*") if file.is_file() and "-" not in file.suffix}


def test_a_key_file_is_made_for_its_owner_and_opens_the_archive(tmp_path: Path) -> None:
    with opened(tmp_path / "a", encryption=True) as storage:
        made = storage.keys.made
        assert made is not None and made.is_relative_to(tmp_path / "config")
        storage.store_audio_file(sound(tmp_path))
    assert os.name == "nt" or made.stat().st_mode & 0o777 == 0o600
    with opened(tmp_path / "a") as storage:
        assert storage.stats()["recordings"] == 1 and storage.keys.made is None


def test_each_way_to_give_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = base64.b64encode(KEY).decode()
    (tmp_path / "file.key").write_text(text + "\n")
    (tmp_path / "file.key").chmod(0o600)
    opened(tmp_path / "a", encryption=KEY).close()
    opened(tmp_path / "a", encryption=f"keyfile:{tmp_path / 'file.key'}").close()
    monkeypatch.setenv("AUDIO_STORAGE_KEY_FILE", str(tmp_path / "file.key"))
    opened(tmp_path / "a").close()
    monkeypatch.setenv("AUDIO_STORAGE_KEY", base64.b64encode(OTHER).decode())
    with pytest.raises(KeyRefused):  # the key comes before the file
        opened(tmp_path / "a")
    opened(tmp_path / "a", encryption=KEY).close()  # and what is given before both
    monkeypatch.setenv("AUDIO_STORAGE_KEY", text)
    opened(tmp_path / "a").close()
    with pytest.raises(InvalidSetting, match="keyfile:/path"):
        opened(tmp_path / "b", encryption="no such thing")


@pytest.mark.parametrize("bad", [b"short", b"x" * 33])
def test_a_key_of_another_length_is_refused_before_anything_is_made(tmp_path: Path, bad: bytes) -> None:
    with pytest.raises(KeyRefused, match="bytes"):
        opened(tmp_path / "a", encryption=bad)
    assert not (tmp_path / "a").exists()


def test_a_wrong_or_missing_key_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(tmp_path / "a", encryption=True) as storage:
        storage.store_audio_file(sound(tmp_path))
        made = storage.keys.made
    before = files(tmp_path / "a")
    with pytest.raises(KeyRefused, match="another archive"):
        opened(tmp_path / "a", encryption=OTHER)
    assert made
    made.rename(tmp_path / "elsewhere")
    with pytest.raises(KeyMissing, match="AUDIO_STORAGE_KEY_FILE"):
        opened(tmp_path / "a")
    assert main(["stats", "--archive", str(tmp_path / "a"), "--json"]) == 11
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "key_missing"
    assert files(tmp_path / "a") == before


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with opened(tmp_path / "a", encryption=True) as storage:
        made = storage.keys.made
    assert made
    made.chmod(mode)
    with pytest.raises(KeyRefused, match="chmod 600"):
        opened(tmp_path / "a")
    made.chmod(0o400)
    opened(tmp_path / "a").close()


def test_a_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_PASSPHRASE", "correct horse battery staple")
    with opened(tmp_path / "a", encryption="passphrase") as storage:
        storage.store_audio_file(sound(tmp_path))
        recovery = storage.keys.export(tmp_path / "recovery.key")
        assert [slot["kind"] for slot in storage.keys.show()["slots"]] == ["passphrase", "key"]
    opened(tmp_path / "a").close()
    monkeypatch.setenv("AUDIO_STORAGE_PASSPHRASE", "Correct horse battery staple")
    with pytest.raises(KeyRefused):
        opened(tmp_path / "a")
    monkeypatch.delenv("AUDIO_STORAGE_PASSPHRASE")
    with pytest.raises(KeyMissing, match="AUDIO_STORAGE_PASSPHRASE"):
        opened(tmp_path / "a", key_source="passphrase")
    with opened(tmp_path / "a", encryption=f"keyfile:{recovery}") as storage:
        assert storage.stats()["recordings"] == 1
    assert b"correct horse" not in (tmp_path / "a" / "keys.json").read_bytes()


class _Ring(KeyringBackend):
    """An operating system's keyring, in memory."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


def test_the_keyring_of_the_operating_system(tmp_path: Path) -> None:
    before, ring = keyring.get_keyring(), _Ring()
    keyring.set_keyring(ring)
    try:
        opened(tmp_path / "a", encryption="keyring").close()
        opened(tmp_path / "a", key_source="keyring").close()
        ring.kept.clear()
        with pytest.raises(KeyMissing, match="keyring"):
            opened(tmp_path / "a", key_source="keyring")
    finally:
        keyring.set_keyring(before)


def test_a_forged_or_lost_file_of_keys_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "a", encryption=KEY) as storage:
        storage.store_audio_file(sound(tmp_path))
    file = tmp_path / "a" / "keys.json"
    good = file.read_text()
    for change in ({"encrypted": False}, {"archive_id": "another"}):
        file.write_text(json.dumps({**json.loads(good), **change}))
        with pytest.raises(KeyRefused):
            opened(tmp_path / "a", encryption=KEY)
    file.write_text("{")
    with pytest.raises(ArchiveDamaged, match=r"keys\.json"):
        opened(tmp_path / "a", encryption=KEY)
    costly = json.loads(good)
    costly["slots"][0]["kdf"] = {"name": "scrypt", "n": 1 << 40, "r": 8, "p": 1, "salt": "AAAA"}
    file.write_text(json.dumps(costly))
    with pytest.raises(ArchiveDamaged):
        opened(tmp_path / "a", encryption=KEY)
    file.unlink()
    with pytest.raises((ArchiveDamaged, KeyMissing, Conflict)):
        opened(tmp_path / "a", encryption=KEY)
    with pytest.raises((ArchiveDamaged, KeyMissing)):
        opened(tmp_path / "a")


def test_an_archive_is_not_encrypted_in_place(tmp_path: Path) -> None:
    opened(tmp_path / "a").close()
    before = files(tmp_path / "a")
    with pytest.raises(Conflict, match="copy --encrypt"):
        opened(tmp_path / "a", encryption=KEY)
    assert files(tmp_path / "a") == before
    with opened(tmp_path / "a") as storage, pytest.raises(NotFound, match="no keys"):
        storage.keys.show()


def test_keys_for_the_audit_log_alone_leave_everything_readable(tmp_path: Path) -> None:
    path = sound(tmp_path)
    opened(tmp_path / "a").close()
    with opened(tmp_path / "a", audit=True) as storage:
        audio_id = int(storage.store_audio_file(path))
        assert not storage.keys.show()["encrypted"]
        stored = storage.home / storage.get_recording(audio_id).file_path
        assert stored.read_bytes() == path.read_bytes()


def test_what_stays_readable_elsewhere_has_to_be_accepted(home: Path) -> None:
    if not (home / "audio-storage.toml").exists():
        pytest.skip("on SQLite nothing does")
    with pytest.raises(InvalidInput, match=r"PostgreSQL.*--accept-plaintext-catalogue"):
        opened(home, encryption=KEY)
    opened(home, encryption=KEY, accept_plaintext_catalogue=True).close()
    opened(home, encryption=KEY).close()  # it was accepted


def test_init_says_where_the_key_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key_file = tmp_path / "safe" / "my.key"
    assert main(["init", "--encrypt", "--key-file", str(key_file), "--archive", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert str(key_file) in said and "Keep a copy elsewhere" in said
    assert main(["keys", "show", "--archive", str(tmp_path / "a"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["encrypted"] and key_file.read_text().strip() not in json.dumps(shown)
    assert main(["keys", "export", str(tmp_path / "copy.key"), "--archive", str(tmp_path / "a")]) == 0
    assert (tmp_path / "copy.key").read_bytes() == key_file.read_bytes()
    assert main(["keys", "export", str(tmp_path / "copy.key"), "--archive", str(tmp_path / "a")]) == 5


# --- rotation --------------------------------------------------------------------------------------------------------


def heard(storage: AudioStorageSystem) -> set[bytes]:
    found = set()
    for recording in storage.list_recordings():
        with storage.open_audio(recording.id) as file:
            found.add(file.read())
    return found


def test_rotating_leaves_the_audio_alone_and_others_at_work(home: Path, tmp_path: Path) -> None:
    protection = {"encryption": KEY, "accept_plaintext_catalogue": True}
    with opened(home, **protection) as storage, opened(home, **protection) as other:
        paths = [sound(tmp_path, hertz) for hertz in (300.0, 400.0, 500.0)]
        for path in paths[:2]:
            storage.store_audio_file(path)
        before = files(home / "audio_files")
        old = storage.keys.show()["generations"][0]["id"]
        done = storage.keys.rotate()
        assert done.rewrapped == 2 and not done.resumed
        assert files(home / "audio_files") == before
        assert {g["id"]: g["data_keys"] for g in storage.keys.show()["generations"]} == {old: 0, done.generation: 2}
        assert heard(other) == {path.read_bytes() for path in paths[:2]}, "a process that has not heard of it"
        other.store_audio_file(paths[2])
        assert heard(storage) == {path.read_bytes() for path in paths}


def test_a_new_key_file_replaces_the_old_one(tmp_path: Path) -> None:
    with opened(tmp_path / "a", encryption=True) as storage:
        storage.store_audio_file(sound(tmp_path))
        made = storage.keys.made
        assert made
        old = made.read_bytes()
        assert storage.keys.rotate(new_key=True).key_file == str(made)
    assert made.read_bytes() != old and len(list(made.parent.iterdir())) == 1
    with opened(tmp_path / "a") as storage:
        assert heard(storage) == {sound(tmp_path).read_bytes()}
    with pytest.raises(KeyRefused):
        opened(tmp_path / "a", encryption=base64.b64decode(old))
    with opened(tmp_path / "b", encryption=KEY) as storage, pytest.raises(InvalidInput, match="not in a file"):
        storage.keys.rotate(new_key=True)


def test_a_new_key_that_opens_nothing_does_not_replace_the_old_one(tmp_path: Path) -> None:
    """It was begun here, while another process elsewhere was faster."""
    with opened(tmp_path / "a", encryption=True) as storage:
        made, board = storage.keys.made, storage.keys
        assert made
        board._begin(board._vault("rotate keys"), new_key=True)
        made.with_name(f"{made.name}.new").write_text(base64.b64encode(OTHER).decode())
        old = made.read_bytes()
        with pytest.raises(KeyMissing, match="finish where that is"):
            storage.keys.rotate(new_key=True)
        assert made.read_bytes() == old
    opened(tmp_path / "a").close()


ROTATE = """
import os, sys
from pathlib import Path
from audio_storage_system import AudioStorageSystem, rotation
from audio_storage_system.keys import sources
sources.user_config_path = lambda name: Path(sys.argv[4]) / name
rotation.BATCH = 1
name, count = sys.argv[2].rsplit(":", 1)
owner, name = (getattr(rotation, name.split(".")[0]), name.split(".")[1]) if "." in name else (rotation, name)
inner, left = getattr(owner, name), [int(count)]
def dying(*args, **named):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), 9)
    return inner(*args, **named)
setattr(owner, name, dying)
AudioStorageSystem(sys.argv[1]).keys.rotate(new_key=sys.argv[3] == "new")
"""
MOMENTS = [("same", "KeyBoard._rewrap:2"), ("same", "KeyBoard._change:2")]
MOMENTS += [("new", f"{name}:{count}") for name, count in (
    ("KeyBoard._change", 1), ("KeyBoard._finish", 1), ("KeyBoard._rewrap", 4), ("_put_in_place", 1),
    ("KeyBoard._change", 2),
)]  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="processes are killed by signals")
@pytest.mark.parametrize(("key", "moment"), MOMENTS)
def test_a_rotation_that_is_killed_is_finished_by_the_next(tmp_path: Path, moment: str, key: str) -> None:
    with opened(tmp_path / "a", encryption=True) as storage:
        paths = [sound(tmp_path, hertz) for hertz in (300.0, 400.0, 500.0)]
        for path in paths:
            storage.store_audio_file(path)
        made = storage.keys.made
    assert made
    old = made.read_bytes()
    whole = {path.read_bytes() for path in paths}
    arguments = [str(tmp_path / "a"), moment, key, str(tmp_path / "config")]
    child = subprocess.run([sys.executable, "-c", ROTATE, *arguments], check=False)
    assert child.returncode == -signal.SIGKILL
    with opened(tmp_path / "a") as storage:
        assert heard(storage) == whole, "everything is readable in between"
        storage.keys.rotate(new_key=key == "new")
        shown = storage.keys.show()
        assert not shown["rotating"] and len(shown["slots"]) == 1 and shown["slots"][0]["in_use"]
        assert [each["data_keys"] for each in shown["generations"] if each["current"]] == [3]
    with opened(tmp_path / "a") as storage:
        assert heard(storage) == whole
    assert (made.read_bytes() != old) == (key == "new")


def test_a_data_key_that_was_tampered_with_stops_a_rotation_and_is_named(home: Path, tmp_path: Path) -> None:
    from sqlalchemy import update

    from audio_storage_system.database.tables import data_keys

    with opened(home, encryption=KEY, accept_plaintext_catalogue=True) as storage:
        audio_id = int(storage.store_audio_file(sound(tmp_path)))
        with storage._archive.database.write() as connection:
            connection.execute(update(data_keys).values(wrapped=b"\0" * 60))
        with pytest.raises(SealBroken, match="audio_files/"):
            storage.keys.rotate()
        with pytest.raises(SealBroken, match="was changed"):
            storage.open_audio(audio_id)


# --- Fernet ----------------------------------------------------------------------------------------------------------


def test_a_fernet_file_is_stored_decrypted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, path = Fernet.generate_key(), sound(tmp_path)
    (tmp_path / "talk.wav.enc").write_bytes(Fernet(key).encrypt(path.read_bytes()))
    (tmp_path / "fernet.key").write_bytes(key)
    with opened(tmp_path / "a", encryption=KEY) as storage:
        added = storage.add(tmp_path / "talk.wav.enc", fernet_key=key)
        assert heard(storage) == {path.read_bytes()}
        assert storage.get_recording(int(added)).original_name == "talk.wav"
        assert storage.add(path).duplicate
        with pytest.raises(KeyRefused, match="not a Fernet file of this key"):
            storage.add(tmp_path / "talk.wav.enc", fernet_key=Fernet.generate_key())
        with pytest.raises(InvalidInput, match="base64"):
            storage.add(tmp_path / "talk.wav.enc", fernet_key="not a key")
    arguments = ["add", str(tmp_path / "talk.wav.enc"), "--fernet-key-file", str(tmp_path / "fernet.key")]
    assert main([*arguments, "--archive", str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_no_secret_is_in_what_is_printed() -> None:
    source = KeySource(key="c2VjcmV0", passphrase="hunter2")  # noqa: S106
    assert "c2VjcmV0" not in repr(source) and "hunter2" not in repr(source)


def test_refusals_about_keys_say_what_was_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUDIO_STORAGE_PASSPHRASE", "correct horse")
    place, taken = str(tmp_path / "a"), tmp_path / "taken.key"
    taken.touch()
    assert main(["init", "--encrypt", "--key-source", "passphrase", "--archive", place]) == 0
    assert main(["keys", "export", str(taken), "--archive", place]) == 5
    assert "There is a file" in capsys.readouterr().err
    assert main(["keys", "rotate", "--new-key", "--archive", place]) == 2
    assert "audio-storage copy" in capsys.readouterr().err
    monkeypatch.setenv("AUDIO_STORAGE_PASSPHRASE", "wrong")
    assert main(["list", "--archive", place]) == 11
    assert "it is not the passphrase" in capsys.readouterr().err


def test_init_audit_gives_a_log_to_an_archive_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(tmp_path / "a")
    assert main(["init", "--archive", place]) == 0
    assert main(["audit", "verify", "--archive", place]) == 5
    assert "audio-storage init --audit" in capsys.readouterr().err
    assert main(["init", "--audit", "--archive", place]) == 0
    assert "without it the archive does not open" in capsys.readouterr().out
    assert main(["audit", "verify", "--archive", place]) == 0
