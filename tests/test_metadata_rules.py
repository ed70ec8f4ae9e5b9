"""The history of metadata, and the schema that an owner wants it to meet."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio_storage_system import AudioStorageSystem
from audio_storage_system.archive import captures
from audio_storage_system.audio.spool import SpoolWriter
from audio_storage_system.catalogue.json_schema import check_schema, violations
from audio_storage_system.cli import main
from audio_storage_system.errors import Forbidden, InvalidInput, InvalidMetadata, NotFound
from catalogues import plain_sql
from sounds import integers, tone, wav

SCHEMA = {
    "type": "object",
    "required": ["user"],
    "properties": {
        "user": {"type": "string", "pattern": "^[a-z]+$"},
        "level": {"type": "integer", "minimum": 1, "maximum": 5},
        "day": {"type": "string", "maxLength": 10},
    },
}


def sound(tmp_path: Path, hertz: float = 440.0) -> Path:
    path = tmp_path / f"{hertz}.wav"
    path.write_bytes(wav(tone(0.2, hertz)))
    return path


# Lists


def test_what_is_added_to_a_list_at_the_same_time_is_all_kept(storage: AudioStorageSystem, tmp_path: Path) -> None:
    audio_id = int(storage.store_audio_file(sound(tmp_path), metadata={"user": "john"}))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: storage.append_metadata(audio_id, "notes", {"n": number}), range(24)))
    notes = storage.get_recording(audio_id).metadata["notes"]
    assert sorted(note["n"] for note in notes) == list(range(24))
    assert len(storage.metadata_history(audio_id, "notes")) == 24
    with pytest.raises(InvalidMetadata, match="not a list"):
        storage.append_metadata(audio_id, "user", "jane")
    assert storage.get_recording(audio_id).metadata["user"] == "john"
    with pytest.raises(NotFound):
        storage.append_metadata(10**6, "notes", 1)


# All or nothing


def test_setting_and_taking_away_is_one_step(storage: AudioStorageSystem, tmp_path: Path) -> None:
    audio_id = int(storage.store_audio_file(sound(tmp_path), metadata={"old": 1, "kept": True}))
    storage.set_metadata_schema({"minProperties": 2, "maxProperties": 2})
    storage.set_metadata(audio_id, {"new": None}, remove=["old"])
    assert storage.get_recording(audio_id).metadata == {"kept": True, "new": None}
    with pytest.raises(InvalidMetadata):
        storage.set_metadata(audio_id, {"kept": False}, remove=["new"])
    assert storage.get_recording(audio_id).metadata == {"kept": True, "new": None}
    with pytest.raises(InvalidMetadata, match="set and to be taken away"):
        storage.set_metadata(audio_id, {"new": 1}, remove=["new"])


def test_a_patch_and_what_is_added_to_lists_is_one_step(storage: AudioStorageSystem, tmp_path: Path) -> None:
    audio_id = int(storage.store_audio_file(sound(tmp_path), metadata={"notes": [1], "state": "new"}))
    storage.patch_metadata(audio_id, {"state": "seen"}, append={"notes": 2, "by": "anna"})
    after = {"notes": [1, 2], "state": "seen", "by": ["anna"]}
    assert storage.get_recording(audio_id).metadata == after
    with pytest.raises(InvalidMetadata, match="not a list"):
        storage.patch_metadata(audio_id, {"notes": None}, append={"state": "x"})
    assert storage.get_recording(audio_id).metadata == after


# History


def test_history_tells_what_was_there_before_who_changed_it_and_when(
    storage: AudioStorageSystem, tmp_path: Path
) -> None:
    began = datetime.now(UTC)
    audio_id = int(storage.store_audio_file(sound(tmp_path), metadata={"user": "john", "day": date(2026, 1, 2)}))
    assert storage.metadata_history(audio_id) == [], "what it was stored with is no change"
    storage.set_metadata(audio_id, {"user": "jane", "level": 3})
    storage.set_metadata(audio_id, {"user": "jane", "level": 4})
    storage.remove_metadata(audio_id, "day", "nothing")
    storage.store_audio_file(sound(tmp_path), metadata={"level": 5, "new": True}, on_duplicate="update")
    told = [(one.key, one.op, one.old_value, one.principal) for one in storage.metadata_history(audio_id)]
    assert told == [
        ("user", "update", "john", "owner"),
        ("level", "add", None, "owner"),
        ("level", "update", 3, "owner"),
        ("day", "remove", date(2026, 1, 2), "owner"),
        ("level", "update", 4, "owner"),
        ("new", "add", None, "owner"),
    ]
    assert [one.old_value for one in storage.metadata_history(audio_id, "level")] == [None, 3, 4]
    assert all(began <= one.changed_at <= datetime.now(UTC) for one in storage.metadata_history(audio_id))


def test_history_goes_with_its_recording_and_is_for_who_may_see_that(
    storage: AudioStorageSystem, tmp_path: Path, home: Path
) -> None:
    audio_id = int(storage.store_audio_file(sound(tmp_path), metadata={"secret": "old"}))
    storage.set_metadata(audio_id, {"secret": "new"})
    storage.users.add("john")
    with pytest.raises(NotFound):
        storage.as_user("john").metadata_history(audio_id)
    storage.delete(audio_id)
    assert plain_sql(home, "SELECT * FROM metadata_history") == []
    with pytest.raises(NotFound):
        storage.metadata_history(audio_id)


def test_a_change_that_is_refused_leaves_no_history(storage: AudioStorageSystem, tmp_path: Path) -> None:
    audio_id = int(storage.store_audio_file(sound(tmp_path), metadata={"user": "john"}))
    storage.set_metadata_schema(SCHEMA)
    for values in ({"user": 7}, {"user": "jane", "level": 9}):
        with pytest.raises(InvalidMetadata):
            storage.set_metadata(audio_id, values)
    assert storage.metadata_history(audio_id) == []
    assert storage.get_recording(audio_id).metadata == {"user": "john"}


VALUES = st.dictionaries(st.sampled_from("abc"), st.one_of(st.integers(0, 3), st.text("xy", max_size=2), st.none()))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.one_of(VALUES, st.lists(st.sampled_from("abc"), unique=True)), max_size=8))
def test_history_read_backwards_leads_to_what_it_was(
    storage: AudioStorageSystem, tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    path = sound(tmp_path_factory.mktemp("sound"), 300.0 + storage.stats()["recordings"])
    path.write_bytes(path.read_bytes() + str(time.monotonic_ns()).encode())
    audio_id = int(storage.store_audio_file(path, metadata={"a": 1}))
    for step in steps:
        storage.set_metadata(audio_id, step) if isinstance(step, dict) else storage.remove_metadata(audio_id, *step)
    now = dict(storage.get_recording(audio_id).metadata)
    for change in reversed(storage.metadata_history(audio_id)):
        if change.op == "add":
            del now[change.key]
        else:
            assert (change.key in now) == (change.op == "update")
            now[change.key] = change.old_value
    assert now == {"a": 1}


# Schemas


def test_a_schema_holds_wherever_metadata_is_set(
    storage: AudioStorageSystem, tmp_path: Path, scripted_engine: object
) -> None:
    storage.set_metadata_schema(SCHEMA)
    assert storage.metadata_schema() == SCHEMA
    with pytest.raises(InvalidMetadata, match=r"'user'.*required.*rule required"):
        storage.store_audio_file(sound(tmp_path))
    with pytest.raises(InvalidMetadata, match=r"'level'.*maximum: 5"):
        storage.add(sound(tmp_path), metadata={"user": "john", "level": 6})
    assert storage.list_recordings() == [] and list(storage._archive.blobs.keys("audio_files")) == []
    audio_id = int(storage.store_audio_file(sound(tmp_path), metadata={"user": "john", "day": date(2026, 1, 2)}))
    with pytest.raises(InvalidMetadata, match=r"'user'.*pattern"):
        storage.set_metadata(audio_id, {"user": "John"})
    with pytest.raises(InvalidMetadata, match=r"'user'.*required"):
        storage.remove_metadata(audio_id, "user")
    with pytest.raises(InvalidMetadata, match=r"'level'.*type"):
        storage.store_audio_file(sound(tmp_path), metadata={"level": "high"})
    with pytest.raises(InvalidMetadata, match=r"'level'.*minimum"):
        storage.store_audio_file(sound(tmp_path), metadata={"level": 0}, on_duplicate="update")
    assert storage.get_recording(audio_id).metadata == {"user": "john", "day": date(2026, 1, 2)}
    assert storage.remove_metadata_schema() and not storage.remove_metadata_schema()
    storage.set_metadata(audio_id, {"user": 7})
    assert storage.metadata_schema() is None


def test_what_is_stored_stays_and_is_listed(storage: AudioStorageSystem, tmp_path: Path) -> None:
    good, bad = (
        int(storage.store_audio_file(sound(tmp_path, 400 + n), metadata=values))
        for n, values in enumerate(({"user": "john"}, {"level": 9}))
    )
    assert storage.check_metadata() == []
    storage.set_metadata_schema(SCHEMA)
    [found] = storage.check_metadata()
    assert (found.audio_id, found.original_name) == (bad, "401.wav")
    assert {(one.key, one.rule) for one in found.violations} == {("user", "required"), ("level", "maximum")}
    assert storage.get_recording(bad).metadata == {"level": 9}
    storage.set_metadata(bad, {"user": "jane", "level": 1})
    storage.set_metadata(good, {"level": 2})
    assert storage.check_metadata() == []


def test_a_capture_is_never_lost_for_a_schema(
    storage: AudioStorageSystem, caplog: pytest.LogCaptureFixture, scripted_engine: object
) -> None:
    archive = storage._archive
    storage.set_metadata_schema(SCHEMA)
    with pytest.raises(InvalidMetadata, match="required"):
        storage.record_and_store_audio(duration=1)  # said before anybody speaks
    spool = SpoolWriter(archive.spool / "cut", 16_000, 1, {"level": ["9", "integer"]})
    spool.write(integers(tone(0.5, rate=16_000)).tobytes())
    spool.close().release()
    [recovered] = captures.recover(archive)
    assert storage.get_recording(recovered.audio_id).metadata == {"level": 9}
    assert any("stored, although" in record.getMessage() for record in caplog.records)
    assert [one.audio_id for one in storage.check_metadata()] == [recovered.audio_id]


def test_each_owner_has_his_own_schema(storage: AudioStorageSystem, tmp_path: Path) -> None:
    for name in ("john", "jane"):
        storage.users.add(name)
    john, jane = storage.as_user("john"), storage.as_user("jane")
    john.set_metadata_schema({"required": ["case"]})
    storage.set_metadata_schema({"required": ["ward"]}, owner="jane")
    with pytest.raises(InvalidMetadata, match="case"):
        john.store_audio_file(sound(tmp_path))
    with pytest.raises(InvalidMetadata, match="ward"):
        jane.store_audio_file(sound(tmp_path))
    storage.store_audio_file(sound(tmp_path))
    assert jane.metadata_schema() == {"required": ["ward"]}
    for call in (
        lambda: john.set_metadata_schema({}, owner="jane"),
        lambda: john.metadata_schema("jane"),
        lambda: john.remove_metadata_schema("jane"),
        lambda: john.check_metadata("jane"),
    ):
        with pytest.raises(Forbidden):
            call()
    with pytest.raises(NotFound):
        storage.set_metadata_schema({}, owner="nobody")


DEEP: Any = {}
for _ in range(40):
    DEEP = {"not": DEEP}
DOUBLING = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(50)} | {"a50": {}}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ([], "object"),
        (True, "object"),
        ({"type": "nonsense"}, "not valid at type"),
        ({"minimum": "3"}, "not valid at minimum"),
        ({"$ref": "http://127.0.0.1:9/schema"}, "refers to"),
        ({"$ref": "file:///etc/passwd"}, "refers to"),
        ({"properties": {"a": {"$ref": "#"}}}, "refers to"),
        ({"$ref": "#/$defs/none"}, "no definition"),
        ({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}, "itself"),
        ({"$dynamicRef": "#x"}, "not supported"),
        ({"properties": {"a": {"$id": "http://127.0.0.1:9/"}}}, "not supported"),
        ({"unevaluatedProperties": False}, "not supported"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "dialect"),
        ({"$defs": DOUBLING, "$ref": "#/$defs/a0"}, "rules"),
        (DEEP, "levels"),
        ({"enum": ["x" * 70_000]}, "65,536"),
        ({"pattern": "("}, "pattern"),
        ({"patternProperties": {"[": {}}}, "pattern"),
        ({"pattern": "a" * 1001}, "1,000"),
        ({"const": float("nan")}, "JSON"),
        ({"const": datetime.now(UTC)}, "JSON"),
    ],
)
def test_what_is_no_schema_or_could_be_slow_is_refused(schema: Any, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("it asked the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    began = time.process_time()
    with pytest.raises(InvalidInput, match=why):
        check_schema(schema)
    assert time.process_time() - began < 5


def test_a_pattern_that_tries_everything_is_stopped() -> None:
    schema = {"properties": {"a": {"pattern": r"^(\w|a|\w\w)+(b|\w)*\d$"}}, "patternProperties": {r"^(x|x?)+$": False}}
    check_schema(schema)
    began = time.process_time()
    with pytest.raises(InvalidMetadata, match="takes too long"):
        list(violations(schema, {"a": "a" * 5_000 + "!"}))
    assert time.process_time() - began < 3


def test_many_items_are_compared_in_one_pass() -> None:
    schema = {"properties": {"a": {"uniqueItems": True}}}
    items = [{"n": number} for number in range(20_000)]
    began = time.process_time()
    assert list(violations(schema, {"a": items})) == []
    assert [one.key for one in violations(schema, {"a": [*items, {"n": 1.0}]})] == ["a"]
    assert [one.key for one in violations(schema, {"a": [True, 1]})] == []
    assert time.process_time() - began < 5


def test_the_rules_that_are_ours_are_those_of_the_library() -> None:
    from jsonschema import Draft202012Validator

    schema = {
        "properties": {"a": {"pattern": "b+"}},
        "patternProperties": {"^x": {"type": "integer"}},
        "additionalProperties": {"type": "string", "minLength": 2},
    }
    check_schema(schema)
    instances: list[dict[str, Any]] = [{}, {"a": "abba"}, {"a": "x"}, {"x1": 3}, {"x1": "3"}, {"q": "no"}, {"q": "n"}]
    for values in instances:
        assert (list(violations(schema, values)) == []) == Draft202012Validator(schema).is_valid(values), values
    strict = {"properties": {"a": {}}, "patternProperties": {"^x": {}}, "additionalProperties": False}
    assert [(one.key, one.rule) for one in violations(strict, {"a": 1, "x": 2, "q": 3})] == [
        ("q", "additionalProperties")
    ]


def test_the_commands(
    home: Path, storage: AudioStorageSystem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio_id = int(storage.store_audio_file(sound(tmp_path), metadata={"level": 9}))

    def run(*words: str) -> tuple[int, Any]:
        code = main(["metadata", *words, "--archive", str(home), "--json"])
        return code, json.loads(capsys.readouterr().out)

    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA))
    assert run("schema", "set", str(file)) == (0, {"schema": SCHEMA})
    assert run("schema", "show") == (0, {"schema": SCHEMA})
    code, told = run("check")
    assert code == 1 and [one["audio_id"] for one in told["nonconforming"]] == [audio_id]
    assert run("set", str(audio_id), "level=7")[0] == 2
    assert run("set", str(audio_id), "level=5", "user=jane")[0] == 0
    assert run("check") == (0, {"nonconforming": []})
    changes = run("history", str(audio_id))[1]["changes"]
    assert [(one["key"], one["op"], one["old_value"]) for one in changes] == [
        ("level", "update", 9),
        ("user", "add", None),
    ]
    assert run("schema", "rm") == (0, {"removed": True})
    file.write_text("{")
    assert run("schema", "set", str(file))[0] == 2
