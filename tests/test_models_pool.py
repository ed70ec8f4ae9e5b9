"""Models are lent, shared, counted, and freed when nobody uses them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audio_storage_system import AudioStorageSystem, model_pool
from audio_storage_system.errors import EngineUnavailable, InvalidSetting
from audio_storage_system.model_pool import ModelPool
from audio_storage_system.pipeline import Engines
from audio_storage_system.testing.scripted import ScriptedTranscriber
from audio_storage_system.testing.tiny_whisper import build_tiny_whisper
from audio_storage_system.transcribers import TranscribeOptions, Window
from patience import until

WATCHER = "idle models"


class Shop:
    """Makes models that are mere objects, and remembers what became of them."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.freed: list[str] = []
        self.wait = threading.Event()
        self.wait.set()

    def load(self, spec: str) -> list[str]:
        if spec.startswith("slow"):
            assert self.wait.wait(20)
        if spec.startswith("bad"):
            self.made.append(spec)
            raise EngineUnavailable(spec=spec, reason="it is bad")
        self.made.append(spec)
        return [spec]

    def free(self, model: list[str]) -> None:
        self.freed.append(model[0])

    def pool(self, idle_seconds: float) -> ModelPool[list[str]]:
        return ModelPool("thing", self.load, self.free, idle_seconds=idle_seconds)


@pytest.fixture
def shop() -> Shop:
    return Shop()


def watchers() -> int:
    return sum(thread.name == WATCHER for thread in threading.enumerate())


def test_all_threads_share_one_model_and_are_counted(shop: Shop) -> None:
    pool, inside, go_on = shop.pool(60), threading.Barrier(5), threading.Event()

    def use(_: int) -> int:
        with pool.borrow("a") as model:
            inside.wait(20)
            assert go_on.wait(20)
            return id(model)

    with ThreadPoolExecutor(4) as threads:
        used = threads.map(use, range(4))
        inside.wait(20)
        [loaded] = pool.loaded()
        assert (loaded.kind, loaded.spec, loaded.users, loaded.idle_seconds) == ("thing", "a", 4, None)
        go_on.set()
        assert len(set(used)) == 1
    assert shop.made == ["a"]
    [loaded] = pool.loaded()
    assert loaded.users == 0
    assert loaded.idle_seconds is not None
    assert 0 <= loaded.idle_seconds < 20
    pool.close()


def test_what_nobody_uses_is_freed_after_its_time_and_loaded_again(shop: Shop) -> None:
    pool = shop.pool(0.2)
    with pool.borrow("a"):
        time.sleep(0.4)
        assert shop.freed == []
    until(lambda: shop.freed == ["a"], 20)
    assert pool.loaded() == []
    with pool.borrow("a"):
        assert shop.made == ["a", "a"]
    pool.close()


def test_the_thread_that_frees_lives_only_while_something_is_idle(shop: Shop) -> None:
    before, pool = watchers(), shop.pool(0.1)
    with pool.borrow("a"):
        assert watchers() == before
    until(lambda: shop.freed == ["a"], 20)
    until(lambda: watchers() == before, 20)
    forever = shop.pool(-1)
    with forever.borrow("b"):
        pass
    assert watchers() == before
    forever.close()


@pytest.mark.parametrize("idle_seconds", [-1, float("inf"), 1e12])
def test_some_are_kept_until_the_end(shop: Shop, idle_seconds: float) -> None:
    before, pool = watchers(), shop.pool(idle_seconds)
    with pool.borrow("a"):
        pass
    time.sleep(0.1)
    assert shop.freed == []
    pool.close()
    assert shop.freed == ["a"]
    assert watchers() == before


def test_zero_frees_at_once_when_the_last_one_gives_it_back(shop: Shop) -> None:
    pool = shop.pool(0)
    with pool.borrow("a"):
        with pool.borrow("a"):
            pass
        assert shop.freed == []
    assert shop.freed == ["a"]
    assert watchers() == 0


def test_a_slow_load_keeps_nobody_from_another_model(shop: Shop) -> None:
    pool = shop.pool(60)
    shop.wait.clear()

    def use_slow() -> None:
        with pool.borrow("slow"):
            pass

    slow = threading.Thread(target=use_slow)
    slow.start()
    until(lambda: pool._places["slow"].lock.locked(), 20)
    with pool.borrow("a"), pool.borrow("b"):
        assert [model.spec for model in pool.loaded()] == ["a", "b"]
    shop.wait.set()
    slow.join(20)
    pool.close()
    assert sorted(shop.freed) == ["a", "b", "slow"]


def test_a_refusal_is_the_answer_for_a_while(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = shop.pool(60)
    for _ in range(3):
        with pytest.raises(EngineUnavailable), pool.borrow("bad"):
            pass
    assert shop.made == ["bad"]
    monkeypatch.setattr(model_pool, "ASK_AGAIN_SECONDS", -1.0)
    other = shop.pool(60)
    for _ in range(2):
        with pytest.raises(EngineUnavailable), other.borrow("bad"):
            pass
    assert shop.made == ["bad"] * 3
    assert pool.loaded() == other.loaded() == []


def test_closing_spares_what_is_in_use_until_it_comes_back(shop: Shop) -> None:
    pool = shop.pool(60)
    with pool.borrow("idle"):
        pass
    with pool.borrow("busy") as model:
        pool.close()
        assert shop.freed == ["idle"]
        assert model == ["busy"]
    assert shop.freed == ["idle", "busy"]
    with pool.borrow("late") as model:
        assert model == ["late"]
    assert shop.freed == ["idle", "busy", "late"]
    assert watchers() == 0


def test_one_that_cannot_be_freed_does_not_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    freed: list[str] = []

    def free(model: str) -> None:
        if model == "a":
            raise LookupError
        freed.append(model)

    pool = ModelPool("thing", lambda spec: spec, free)
    with pool.borrow("a"), pool.borrow("b"):
        pass
    pool.close()
    assert freed == ["b"]
    assert "thing a could not be freed" in caplog.text


def test_many_threads_never_see_a_model_that_was_freed() -> None:
    gone: set[int] = set()
    pool: ModelPool[list[int]] = ModelPool("thing", lambda spec: [1], lambda model: model.clear(), idle_seconds=0)

    def use(number: int) -> None:
        for _ in range(200):
            with pool.borrow(str(number % 2)) as model:
                if not model:
                    gone.add(number)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(use, range(6)))
    assert not gone
    assert pool.loaded() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_begins_with_nothing_and_frees_nothing_of_its_parents(shop: Shop) -> None:
    pool = shop.pool(0.0)
    with pool.borrow("a"):
        if (child := os.fork()) == 0:
            good = pool.loaded() == []
            with pool.borrow("a"):
                good = good and shop.made == ["a", "a"]
            os._exit(0 if good and shop.freed == ["a"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# Recognisers


@pytest.fixture
def whisper(tmp_path: Path) -> str:
    return f"faster-whisper:{build_tiny_whisper(tmp_path / 'model', 'hello again world')}"


@pytest.fixture
def storage(tmp_path: Path, scripted_engine: type[ScriptedTranscriber]) -> Iterator[AudioStorageSystem]:
    with AudioStorageSystem(tmp_path / "archive", transcriber="scripted") as opened:
        yield opened


def test_an_archive_tells_what_it_has_loaded(storage: AudioStorageSystem, demo: Path) -> None:
    assert storage.models() == []
    seen: list[int] = []
    ScriptedTranscriber.before = lambda window: seen.append(storage.models()[0].users)  # type: ignore[assignment]
    storage.add(demo / "call.flac")
    assert set(seen) == {1}
    assert [(model.kind, model.spec, model.users) for model in storage.models()] == [("transcriber", "scripted", 0)]
    storage.close()
    assert storage.models() == []


def test_the_fallback_is_lent_when_the_weights_are_not_to_be_had() -> None:
    engines = Engines()
    with engines.borrow("base", fallback="pocketsphinx") as choice:
        assert (choice.fallback, choice.transcriber.engine) == (True, "pocketsphinx")
        [loaded] = engines.loaded()
        assert (loaded.spec, loaded.users) == ("pocketsphinx", 1)
        assert loaded.memory_bytes is None or loaded.memory_bytes > 20e6, "its process counts too"
    with pytest.raises(EngineUnavailable), engines.borrow("base", language="de", fallback="pocketsphinx"):
        pass
    assert [model.users for model in engines.loaded()] == [0]
    engines.close()


def test_a_language_that_it_does_not_know_leaves_nothing_in_use() -> None:
    engines = Engines(idle_seconds=0)
    with pytest.raises(EngineUnavailable, match="language"), engines.borrow("pocketsphinx", language="de"):
        pass
    assert engines.loaded() == []


def test_a_whisper_model_that_was_freed_comes_back(whisper: str, demo: Path, tmp_path: Path) -> None:
    with AudioStorageSystem(tmp_path / "a", transcriber=whisper, model_idle_seconds=0, transcribe_at_once=2) as storage:
        one = storage.add(demo / "call.flac")
        assert storage.models() == []
        other = storage.add(demo / "voice_note.flac")
        for added in (one, other):
            assert "hello again world" in storage.transcripts(added)[0].transcription


def test_calls_at_once_give_what_one_call_gives(whisper: str) -> None:
    import numpy as np

    windows = [Window(0.0, np.full(16_000 * n, 0.1 * n, np.float32)) for n in range(1, 5)]
    with Engines(at_once=2).borrow(whisper) as choice, Engines().borrow(whisper) as single:
        with ThreadPoolExecutor(2) as threads:
            found = list(threads.map(lambda w: choice.transcriber.transcribe([w], TranscribeOptions()), windows))
        assert found == [single.transcriber.transcribe([window], TranscribeOptions()) for window in windows]


FORKING = """
import os, sys
from audio_storage_system import AudioStorageSystem, AudioStorageSystemError
place, spec, one, other = sys.argv[1:]
storage = AudioStorageSystem(place, transcriber=spec)
storage.add(one)
if (child := os.fork()) == 0:
    try:
        storage.add(other)
    except AudioStorageSystemError as error:
        os.write(2, str(error).encode())
        os._exit(1)
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
storage.add(other)
sys.exit(code)
"""


def fork_after_use(spec: str, place: Path, demo: Path) -> subprocess.CompletedProcess[bytes]:
    words = [place, spec, demo / "call.flac", demo / "voice_note.flac"]
    return subprocess.run([sys.executable, "-c", FORKING, *map(str, words)], capture_output=True, timeout=250)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_transcribes_with_a_recogniser_of_its_own(demo: Path, tmp_path: Path) -> None:
    done = fork_after_use("pocketsphinx", tmp_path / "a", demo)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_of_one_that_used_whisper_gets_an_error(whisper: str, demo: Path, tmp_path: Path) -> None:
    done = fork_after_use(whisper, tmp_path / "a", demo)
    assert done.returncode == 1
    assert b"was forked" in done.stderr


@pytest.mark.parametrize(("name", "value"), [("model_idle_seconds", float("nan")), ("transcribe_at_once", 0)])
def test_senseless_settings_are_refused(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(InvalidSetting, match=name):
        AudioStorageSystem(tmp_path / "a", **{name: value})  # type: ignore[arg-type]
