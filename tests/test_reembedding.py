"""Embedding an archive anew: searches go on meanwhile, nothing is left out, and a kill costs one batch at most."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from audio_storage_system import AudioStorageSystem, copy_archive
from audio_storage_system.archive import reembedding
from audio_storage_system.catalogue.reembedding import Share
from audio_storage_system.cli import main
from audio_storage_system.embedders import AUDIO_EMBEDDERS, TEXT_EMBEDDERS
from audio_storage_system.errors import Conflict, InvalidInput, NotFound, UnknownSpec
from audio_storage_system.testing import scripted
from builders import Talk, fill
from catalogues import plain_sql
from copying import content, sound

pytestmark = pytest.mark.usefixtures("scripted_engine")

# A process that reembeds with a slow model, and says on stdout when it has begun.
PROGRAM = """
import sys, time
from audio_storage_system import AudioStorageSystem, copy_archive
from audio_storage_system.embedders import TEXT_EMBEDDERS
from audio_storage_system.testing import scripted
TEXT_EMBEDDERS.builtin["scripted"] = scripted.TEXT_FACTORY
scripted.ScriptedTextEmbedder.before = lambda texts: time.sleep(float(sys.argv[2]))
with AudioStorageSystem(sys.argv[1], create=False) as storage:
    done = storage.reembed(sys.argv[3], drop_old="--drop-old" in sys.argv, progress=lambda *at: print(*at, flush=True))
    print(done.as_dict(), flush=True)
"""


@pytest.fixture(autouse=True)
def embedders(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripted embedders are known."""
    monkeypatch.setitem(cast(dict[str, str], TEXT_EMBEDDERS.builtin), "scripted", scripted.TEXT_FACTORY)
    monkeypatch.setitem(cast(dict[str, str], AUDIO_EMBEDDERS.builtin), "scripted", scripted.AUDIO_FACTORY)
    monkeypatch.setattr(scripted.ScriptedTextEmbedder, "before", None)


@pytest.fixture
def storage(home: Path, tmp_path: Path) -> Iterator[AudioStorageSystem]:
    """Three recordings with words and sound, one of them transcribed twice."""
    with AudioStorageSystem(home, transcriber="scripted", text_embedder="scripted:one") as storage:
        for seed in range(3):
            storage.add(sound(tmp_path / f"{seed}.wav", seed))
        storage.generate_transcript(1, whisper_model="scripted:twice", activate=False)
        yield storage


def spaces(storage: AudioStorageSystem) -> dict[tuple[str, str], tuple[bool, int]]:
    """Of each space, by kind and model, whether it is in use and how many vectors it has."""
    found = storage.stats()["spaces"]
    return {(s["kind"], s["model"]): (s["active"], s["embeddings"]) for s in found}


def many(storage: AudioStorageSystem, recordings: int = 20, passages: int = 10) -> int:
    """Recordings with words alone; how many passages the archive has then."""
    fill(
        storage._archive,
        [Talk([f"recording {r} says {p}" for p in range(passages)]) for r in range(recordings)],
    )
    return int(storage.stats()["passages"])


def test_a_new_space_is_filled_and_put_in_use(storage: AudioStorageSystem) -> None:
    seen: list[tuple[str, int, int]] = []
    done = storage.reembed("scripted:two", progress=lambda *at: seen.append(at))
    assert (done.model, done.before, done.switched) == ("scripted:two", "scripted:one", True)
    passages = storage.stats()["passages"]
    found = spaces(storage)
    assert found["transcript", "scripted:two"] == (True, passages)
    assert found["transcript", "scripted:one"] == (False, passages - 1)  # the second version had none yet
    assert found["combined", "0.5*scripted:two+0.5*acoustic-1"][0]
    assert done.made == 2 * passages - 1  # and the same for words and sound together, where there is a sound
    assert seen[0] == ("embedding", 0, seen[0][2]) and ("embedding", done.made) == seen[-2][:2]
    hit = storage.search_similar_audio("second 0 is spoken", mode="semantic", limit=1)[0]
    assert hit.similarity == pytest.approx(1)


def test_the_marker_names_the_space_in_use(storage: AudioStorageSystem, home: Path) -> None:
    storage.reembed("scripted:two")
    noted = json.loads((home / "metadata.json").read_text())["spaces"]
    assert [s["model"] for s in noted if s["kind"] == "transcript" and s["active"]] == ["scripted:two"]


def test_the_old_space_can_be_searched_and_gone_back_to(storage: AudioStorageSystem) -> None:
    storage.reembed("scripted:two")
    old = storage.search_similar_audio("second 0 is spoken", mode="semantic", space="scripted:one", limit=1)[0]
    assert old.similarity == pytest.approx(1)
    back = storage.reembed("scripted:one")
    assert back.switched and back.made == 1  # the second version's words
    assert storage.search_similar_audio("second 0 is spoken", mode="semantic", limit=1)[0].similarity > 0.99


def test_with_the_embedder_in_use_only_gaps_are_filled(storage: AudioStorageSystem) -> None:
    plan = storage.plan_reembedding("scripted:one")
    assert plan.in_use and plan.lacking == 1
    first, second = storage.reembed("scripted:one"), storage.reembed()
    assert not first.switched and first.made >= 1
    assert not second.switched and second.made == 0


def test_a_plan_makes_nothing(storage: AudioStorageSystem) -> None:
    before = spaces(storage)
    plan = storage.plan_reembedding("scripted:two")
    assert plan.lacking == storage.stats()["passages"] and plan.seconds > 0
    assert (plan.model, plan.before, plan.in_use) == ("scripted:two", "scripted:one", False)
    assert plan.frees == {"scripted:one": plan.lacking - 1}
    assert spaces(storage) == before


def test_sounds_are_embedded_anew_with_the_windows_between_the_speech(
    storage: AudioStorageSystem, tmp_path: Path
) -> None:
    old = spaces(storage)["audio", "acoustic-1"][1]
    done = storage.reembed("scripted:sound", kind="audio")
    found = spaces(storage)
    assert done.switched and done.kind == "audio"
    assert found["audio", "scripted:sound"][0] and found["audio", "scripted:sound"][1] >= old
    assert found["combined", "0.5*scripted:one+0.5*scripted:sound"] == (True, storage.stats()["passages"] - 1)
    hit = storage.search_similar_audio(audio=sound(tmp_path / "again.wav", 2), by="combined", limit=1)[0]
    assert hit.audio_id == 3


def test_drop_old_frees_the_vectors_and_the_index(storage: AudioStorageSystem, home: Path) -> None:
    many(storage)
    storage.reembed("scripted:one")
    storage.reindex()
    [old] = [row[0] for row in plain_sql(home, "SELECT id FROM embedding_spaces WHERE model = 'scripted:one'")]
    done = storage.reembed("scripted:two", drop_old=True)
    assert done.freed["scripted:one"] == storage.stats()["passages"]
    assert {key for key in spaces(storage) if key[0] == "transcript"} == {("transcript", "scripted:two")}
    assert {key for key in spaces(storage) if key[0] == "combined"} == {("combined", "0.5*scripted:two+0.5*acoustic-1")}
    assert plain_sql(home, "SELECT count(*) FROM embeddings WHERE space_id = ?", old) == [(0,)]
    assert plain_sql(home, "SELECT count(*) FROM index_cursors WHERE space_id = ?", old) == [(0,)]
    with pytest.raises(NotFound):
        storage.search_similar_audio("anything", space="scripted:one")
    assert storage.search_similar_audio("recording 3 says 4", mode="semantic", limit=1)[0].similarity > 0.99


def test_nothing_of_a_space_in_use_is_freed(storage: AudioStorageSystem) -> None:
    building = reembedding.begin(storage._archive, None, "transcript")
    with pytest.raises(Conflict):
        list(reembedding.drop(storage._archive, building.space))
    assert spaces(storage)["transcript", "scripted:one"][1] > 0


def test_searches_use_the_old_space_until_all_is_there(storage: AudioStorageSystem) -> None:
    many(storage)
    storage.reembed("scripted:one")
    answers = []

    def look(stage: str, done: int, total: int) -> None:
        answers.append(storage.search_similar_audio("recording 7 says 3", mode="semantic", limit=1))

    storage.reembed("scripted:two", progress=look)
    assert len(answers) > 10
    assert all(answer[0].similarity == pytest.approx(1) and not answer.warnings for answer in answers)


def test_what_is_added_meanwhile_is_in_the_new_space_too(storage: AudioStorageSystem, tmp_path: Path) -> None:
    many(storage)
    added = []

    def add(stage: str, done: int, total: int) -> None:
        if len(added) < 5:
            added.append(storage.add(sound(tmp_path / f"late{len(added)}.wav", 100 + len(added))))

    storage.reembed("scripted:two", progress=add)
    assert spaces(storage)["transcript", "scripted:two"] == (True, storage.stats()["passages"])


def test_another_process_that_has_the_archive_open_follows_the_switch(
    storage: AudioStorageSystem, home: Path, tmp_path: Path
) -> None:
    with AudioStorageSystem(home, create=False, transcriber="scripted") as other:
        assert other.search_similar_audio("second 0 is spoken", mode="semantic", limit=1)
        storage.reembed("scripted:two", drop_old=True)
        assert other.search_similar_audio("second 0 is spoken", mode="semantic", limit=1)[0].similarity > 0.99
        other.add(sound(tmp_path / "new.wav", 77))
        assert spaces(other)["transcript", "scripted:two"] == (True, other.stats()["passages"])
        assert ("transcript", "scripted:one") not in spaces(other)


def test_a_recording_deleted_meanwhile_is_no_obstacle(storage: AudioStorageSystem) -> None:
    many(storage)
    deleted: list[Any] = []

    def delete(texts: Any) -> None:
        if len(deleted) < 3:
            deleted.append(storage.delete(4 + 2 * len(deleted)))

    scripted.ScriptedTextEmbedder.before = delete
    storage.reembed("scripted:two")
    assert spaces(storage)["transcript", "scripted:two"] == (True, storage.stats()["passages"])


def test_a_function_is_used_at_once_and_reembed_gives_it_all_vectors(
    storage: AudioStorageSystem, caplog: pytest.LogCaptureFixture
) -> None:
    storage.use_embedder(lambda text: np.array([len(text), 1.0, text.count("s")]), name="lengths")
    with caplog.at_level(logging.WARNING, "audio_storage_system"):
        assert storage.search_similar_audio("second 0 is spoken", mode="hybrid").total
    assert "reembed adds them" in caplog.text
    done = storage.reembed()
    assert (done.model, done.switched) == ("user:lengths", False)
    assert spaces(storage)["transcript", "user:lengths"] == (True, storage.stats()["passages"])
    assert storage.search_similar_audio("second 0 is spoken", mode="semantic", limit=1)[0].similarity > 0.99


def test_an_archive_of_a_function_can_be_given_a_model(storage: AudioStorageSystem, home: Path) -> None:
    storage.use_embedder(lambda text: np.array([len(text), 1.0]), name="lengths")
    storage.reembed()
    with AudioStorageSystem(home, create=False) as other:  # without the function
        done = other.reembed("scripted:two", drop_old=True)
        assert done.before == "user:lengths" and done.switched
        assert other.search_similar_audio("second 0 is spoken", mode="semantic", limit=1)[0].similarity > 0.99
    done = storage.reembed("scripted:two")  # which puts the function away where it is still assigned
    assert storage.generate_text_embedding("a").shape == (scripted.DIMENSION,)


def test_a_function_whose_space_was_freed_gets_a_new_one(
    storage: AudioStorageSystem, home: Path, tmp_path: Path
) -> None:
    storage.use_embedder(lambda text: np.array([len(text), 1.0]), name="lengths")
    storage.reembed()
    with AudioStorageSystem(home, create=False) as other:
        other.reembed("scripted:two", drop_old=True)
    storage.add(sound(tmp_path / "new.wav", 55))
    assert storage.search_similar_audio("second 0 is spoken", mode="semantic", limit=1).hits


def test_several_workers_share_the_work(storage: AudioStorageSystem) -> None:
    passages = many(storage)
    archive = storage._archive
    building = reembedding.begin(archive, "scripted:two", "transcript")

    def work(number: int) -> None:
        for _ in reembedding.batches(archive, building, Share(number, 3)):
            pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spaces(storage)["transcript", "scripted:two"] == (False, passages)
    assert reembedding.switch(archive, building) == []
    assert spaces(storage)["transcript", "scripted:two"][0]


def test_a_space_that_lacks_something_is_not_put_in_use(storage: AudioStorageSystem) -> None:
    building = reembedding.begin(storage._archive, "scripted:two", "transcript")
    next(reembedding.batches(storage._archive, building))
    assert reembedding.switch(storage._archive, building) == [1, 2, 3]
    assert spaces(storage)["transcript", "scripted:one"][0]


def test_a_recording_that_cannot_be_read_keeps_the_old_space_in_use(storage: AudioStorageSystem, home: Path) -> None:
    (home / storage.get_recording(2).file_path).write_bytes(b"damaged")
    with pytest.raises(Conflict, match="recording 2 cannot be read"):
        storage.reembed("scripted:sound", kind="audio")
    assert spaces(storage)["audio", "acoustic-1"][0]
    storage.delete(2)
    assert storage.reembed("scripted:sound", kind="audio").switched


def test_sidecars_show_the_new_vectors(home: Path, tmp_path: Path) -> None:
    with AudioStorageSystem(home, transcriber="scripted", text_embedder="scripted:one", sidecars=True) as storage:
        storage.add(sound(tmp_path / "0.wav", 0))
        [file] = (home / "embeddings").rglob("*.npy")
        before = np.load(file)
        storage.reembed("scripted:two")
        assert np.load(file).shape == before.shape and not np.allclose(np.load(file), before)


@pytest.mark.parametrize(
    ("given", "error"), [({"embedder": "nonsense"}, UnknownSpec), ({"kind": "combined"}, InvalidInput)]
)
def test_what_cannot_be_done_is_refused(
    storage: AudioStorageSystem, given: Mapping[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        storage.reembed(**given)
    with pytest.raises(error):
        storage.plan_reembedding(**given)


def test_the_command_plans_reembeds_and_frees(
    storage: AudioStorageSystem, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    passages = storage.stats()["passages"]
    command = ["reembed", "--embedder", "scripted:two", "--archive", str(home)]

    def ask(*more: str) -> str:
        assert main([*command, *more]) == 0
        return capsys.readouterr().out

    plan = json.loads(ask("--dry-run", "--json"))
    assert plan["dry_run"] and plan["lacking"] == passages and plan["seconds"] > 0
    assert f"{passages} passages (00:12 of sound) to embed" in ask("--dry-run")
    assert f"{passages - 1} vectors of scripted:one would be freed" in ask("--dry-run", "--drop-old")
    assert f"is used now, instead of scripted:one: {2 * passages - 1} vectors made" in ask()
    assert "scripted:two is in use already: 0 vectors made" in ask()
    freed = json.loads(ask("--drop-old", "--json"))
    assert not freed["switched"] and freed["freed"]["scripted:one"] == passages - 1
    assert main(["reembed", "--kind", "combined", "--archive", str(home)]) == 2


def killed(home: Path, *arguments: str, after: int) -> None:
    """Start the program, and kill it when it has shown progress so many times."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(home), *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(after):
        assert process.stdout.readline(), "it ended too early"
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_killed_run_goes_on_where_it_was(storage: AudioStorageSystem, home: Path) -> None:
    passages = many(storage)
    killed(home, "0.4", "scripted:two", after=4)
    one, two = spaces(storage)["transcript", "scripted:one"], spaces(storage)["transcript", "scripted:two"]
    assert one[0] and not two[0]
    assert 0 < two[1] < passages
    asked: list[str] = []
    scripted.ScriptedTextEmbedder.before = asked.extend
    storage.reembed("scripted:two")
    assert len(asked) == passages - two[1]  # what was there is not made again
    assert spaces(storage)["transcript", "scripted:two"] == (True, passages)


def test_killed_at_any_moment_it_ends_as_if_undisturbed(storage: AudioStorageSystem, home: Path) -> None:
    passages = many(storage, recordings=30)
    storage.reembed("scripted:one")
    for moment in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(home), "0.01", "scripted:two", "--drop-old"], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.12 * moment)
        process.kill()
        process.wait()
        process.stdout.close()
        found = spaces(storage)
        assert sum(active for (kind, _), (active, _) in found.items() if kind == "transcript") == 1
        assert storage.search_similar_audio("recording 7 says 3", mode="semantic", limit=1)[0].similarity > 0.99
    storage.reembed("scripted:two", drop_old=True)
    found = spaces(storage)
    assert found["transcript", "scripted:two"] == (True, passages)
    assert len(found) == 3
    assert plain_sql(home, "SELECT count(*) FROM (SELECT passage_id, space_id FROM embeddings WHERE passage_id IS NOT"
                     " NULL GROUP BY passage_id, space_id HAVING count(*) > 1) AS twice") == [(0,)]  # fmt: skip


def test_a_copy_follows_a_switch_and_what_was_freed(storage: AudioStorageSystem, home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert copy_archive(home, copy).complete
    storage.reembed("scripted:two")
    assert copy_archive(home, copy).complete
    storage.reembed("scripted:two", drop_old=True)
    assert copy_archive(home, copy).complete
    with AudioStorageSystem(copy, create=False) as other:
        assert spaces(other) == spaces(storage)
        assert other.search_similar_audio("second 0 is spoken", mode="semantic", limit=1)[0].similarity > 0.99
    building = reembedding.begin(storage._archive, "scripted:three", "transcript")
    assert reembedding.switch(storage._archive, building)  # it lacks everything
    list(reembedding.batches(storage._archive, building))
    assert copy_archive(home, copy).complete
    next(reembedding.drop(storage._archive, building.space))  # cut short: nothing of it is somebody's own at the copy
    assert not copy_archive(home, copy).complete
    storage.reembed(drop_old=True)
    assert copy_archive(home, copy).complete
    assert content(copy) == content(home)
