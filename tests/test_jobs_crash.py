"""Workers that are killed, stopped and cut off, as real processes: nothing is lost, nothing is done twice."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import working
from audio_storage_system import AudioStorageSystem
from audio_storage_system.records import JobState
from catalogues import FILE, Catalogues
from postgres_server import Programs, Server, started
from scenes import KILLED, Scene
from servers import faulty
from working import BATCH, Told, disk, ended, fill

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are killed and stopped by signals")

SIZES = (4, 2, 5, 3)
MOST_KILLS = 35  # in one archive: on a busy machine its work would never end
# Each moment at which a worker dies in its first run over two recordings, and for the how-manieth time it comes there.
MOMENTS = [(word.split(":")[0], int(word.split(":")[1])) for word in """
entering:1 engine_claimed:1 claimed:1 began:1 opened:1 heard:1 heard:2 committing:2 committed:1 committed:2
finishing:1 activating:1 finished:1 stepped:1 proceeding:1 noted:1 queueing:2 engine_ending:1 engine_ended:1
embedding:1 embedding:3 embedded:1 embedded:2 stepped:2 ending:1 done:1 done:2 striking_off:1 left:1
""".split()]  # fmt: skip
# The same for who takes over from a worker that died after its first batch, and for who submits.
OF_TAKING_OVER = ["counting", "handing_back", "handed_back", "striking_off", "took_over", "began"]
OF_SUBMITTING = ["staged", "published", "stored", "given", "queued"]


@pytest.fixture(scope="module", autouse=True)
def engine() -> Iterator[None]:
    """The engine of these tests, known in this process too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(working.TRANSCRIBERS.builtin, working.SPEC, working.FACTORY)  # type: ignore[arg-type]
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return working.talks(tmp_path_factory.mktemp("files"), SIZES)


@pytest.fixture(scope="module")
def expected(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    """What an archive tells of them that nothing ever happened to."""
    return undisturbed(files, tmp_path_factory.mktemp("undisturbed"))


def undisturbed(files: Sequence[Path], home: Path) -> dict[str, Told]:
    with AudioStorageSystem(home, transcriber="scripted") as storage:
        for path in files:
            storage.add(path, metadata={"name": path.name})
        return working.told(storage)


@pytest.fixture
def scene(home: Path, expected: dict[str, Told], tmp_path: Path) -> Iterator[Scene]:
    """On each kind of catalogue."""
    made = Scene(home, expected, tmp_path)
    yield made
    made.close()


@pytest.fixture
def small(expected: dict[str, Told], tmp_path: Path) -> Iterator[Scene]:
    """In a folder, with SQLite."""
    made = Scene(tmp_path / "archive", expected, tmp_path)
    yield made
    made.close()


def some(expected: dict[str, Told], files: Sequence[Path]) -> dict[str, Told]:
    return {path.name: expected[path.name] for path in files}


# At every step


@pytest.fixture(scope="module")
def deaths(
    files: list[Path], expected: dict[str, Told], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Any, Future[None]]]:
    """A worker dies at each moment, and another one goes on; two of these stories at a time."""
    two = files[:2]
    template = Scene(tmp_path_factory.mktemp("template") / "archive", some(expected, two), Path())
    template.submit(*two)
    environment = dict(os.environ)  # in this thread, which changes it meanwhile

    def play(story: Callable[[Scene], None]) -> None:
        scratch = tmp_path_factory.mktemp("scene")
        shutil.copytree(template.home, scratch / "archive")
        scene = Scene(scratch / "archive", template.expected, scratch, environment)
        story(scene)
        scene.finish()
        scene.check()
        shutil.rmtree(scratch)

    def by_worker(point: str, times: int) -> Callable[[Scene], None]:
        return lambda scene: scene.die(point, times)

    def by_successor(point: str) -> Callable[[Scene], None]:
        return lambda scene: (scene.die("committed", 1), scene.die(point, 1))[0]

    with ThreadPoolExecutor(2) as pool:
        yield {
            **{moment: pool.submit(play, by_worker(*moment)) for moment in MOMENTS},
            **{point: pool.submit(play, by_successor(point)) for point in OF_TAKING_OVER},
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment[0]}-{moment[1]}")
def test_a_worker_that_dies_at_any_step_is_followed_by_one_that_goes_on(
    moment: tuple[str, int], deaths: dict[Any, Future[None]]
) -> None:
    deaths[moment].result()


@pytest.mark.parametrize("point", OF_TAKING_OVER)
def test_one_that_dies_while_taking_over_too(point: str, deaths: dict[Any, Future[None]]) -> None:
    deaths[point].result()


@pytest.mark.parametrize("point", OF_SUBMITTING)
def test_who_submits_may_die_and_submit_again(point: str, small: Scene, files: list[Path]) -> None:
    paths = [str(path) for path in files[:2]]
    assert ended(small.start(submit=tuple(paths), die_at=(point, 2))) == KILLED
    assert small.events() == [f"acknowledged {files[0].name} 1"]
    small.finish(submit=tuple(paths))
    small.finish()
    small.check([path.name for path in files[:2]])
    assert small.heard() == sum(SIZES[:2])


@pytest.mark.parametrize("point", ["stored", "given"])
def test_what_was_stored_is_done_without_submitting_again(point: str, small: Scene, files: list[Path]) -> None:
    """Its job came into the catalogue with it; that it is not queued yet is found."""
    paths = tuple(str(path) for path in files[:2])
    assert ended(small.start(submit=paths, die_at=(point, 2))) == KILLED
    small.finish()
    small.check([path.name for path in files[:2]])


# At random moments


def at_random(scene: Scene, files: Sequence[Path], workers: int, kills: int, seed: int, **further: Any) -> None:
    """So many workers are at it, and some random one is killed and replaced time after time, until all is done or there
    were `kills`; then they end by themselves."""
    draw = random.Random(seed)

    def begin() -> Any:
        # No job is to blame here, however often it is hit.
        return scene.start(milliseconds=draw.choice((20, 100, 400)), most_deaths=10_000, **further)

    scene.submit(*files)
    team = [begin() for _ in range(workers)]
    while len(scene.killed) < kills and any(process.is_alive() for process in team):
        time.sleep(draw.uniform(0.1, 1.5))
        place = draw.randrange(workers)
        scene.kill(team[place], f"{time.monotonic():.3f}")
        team[place] = begin()
    assert [ended(process) for process in team] == [0] * workers, scene.events()
    scene.finish()  # the last of them may have been killed when all was done
    scene.check()


def archive_after_archive(
    expected: dict[str, Told], files: Sequence[Path], kinds: Sequence[tuple[Catalogues, int]], kills: int, seed: int
) -> int:
    """The same in one archive after the other, of each of these kinds, until there were so many kills; how many
    archives. `kinds`: catalogues, and workers at it."""
    done = rounds = 0
    while done < kills:
        catalogues, workers = kinds[rounds % len(kinds)]
        with tempfile.TemporaryDirectory() as folder, catalogues.at(Path(folder) / "archive") as home:
            scene = Scene(home, expected, Path(folder))
            try:
                at_random(scene, files, workers, min(MOST_KILLS, kills - done), seed + rounds)
            finally:
                scene.close()
        done, rounds = done + len(scene.killed), rounds + 1
    return rounds


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Told where the test fails."""
    chosen = int(os.environ.get("AUDIO_STORAGE_TEST_SEED") or random.randrange(10**6))
    sys.stdout.write(f"AUDIO_STORAGE_TEST_SEED={chosen}\n")
    return chosen


def test_killed_at_random_moments(expected: dict[str, Told], files: list[Path], seed: int) -> None:
    archive_after_archive(expected, files, [(Catalogues(), 1)], kills=20, seed=seed)


def test_two_in_an_encrypted_archive_killed_at_random(small: Scene, files: list[Path], seed: int) -> None:
    small.expected = some(small.expected, files[:2])
    with Catalogues(encrypted=True).at(small.home):
        at_random(small, files[:2], workers=2, kills=5, seed=seed)
        small.close()
    assert not any(file.read_bytes().startswith(b"SQLite") for file in small.home.glob("*.db"))


@pytest.mark.parametrize("workers", [2, 4])
def test_several_on_a_server_killed_at_random(
    workers: int, small: Scene, files: list[Path], seed: int, postgres_server: Server, postgres_template: str
) -> None:
    with Catalogues(postgres_server, postgres_template).at(small.home):
        at_random(small, files, workers, kills=2 * workers, seed=seed)
        small.close()


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_two_hundred_times(
    tmp_path: Path, postgres_server: Server, postgres_template: str, seed: int, engine: None
) -> None:
    """On both kinds of catalogue, with one, two and four workers."""
    files = working.talks(tmp_path / "files", (7, 4, 6, 3, 5, 8))
    expected = undisturbed(files, tmp_path / "undisturbed")
    server = Catalogues(postgres_server, postgres_template)
    kinds = [(catalogues, workers) for workers in (1, 2, 4) for catalogues in (Catalogues(), server)]
    rounds = archive_after_archive(expected, files, kinds, kills=200, seed=seed)
    sys.stdout.write(f"200 kills in {rounds} archives\n")


# Taking over, stopping, leaving


def wait_until_working(scene: Scene, heard: int = 1) -> None:
    scene.wait_for(lambda: scene.heard() >= heard)


def test_one_that_gives_no_sign_of_life_is_replaced_and_does_no_harm(
    scene: Scene, files: list[Path], record_property: Callable[[str, object], None]
) -> None:
    scene.submit(files[0])
    scene.hold_after(0)
    sleeper = scene.start()
    wait_until_working(scene)
    scene.put_to_sleep(sleeper)
    stopped = time.monotonic()
    other = scene.start(name="other", most="")
    scene.wait_for(lambda: any(event.startswith("took_over") for event in scene.events()), seconds=120)
    record_property("seconds until others took over", time.monotonic() - stopped)
    wait_until_working(scene, 2)
    scene.go_on()
    os.kill(sleeper.pid, signal.SIGCONT)
    scene.killed.append("stopped")  # it may hear its batch to the end, which another has heard
    assert [ended(other), ended(sleeper)] == [0, 0]
    scene.check([files[0].name])


def test_one_that_is_dead_is_replaced_at_once_though_nobody_has_buried_it(small: Scene, files: list[Path]) -> None:
    small.submit(files[0])
    small.hold_after(0)
    worker = command(small)
    wait_until_working(small)
    worker.kill()
    small.killed.append("unburied")
    small.go_on()
    small.finish()
    assert small.events()[0].startswith("took_over")
    worker.communicate()
    small.check([files[0].name])


def test_one_that_is_told_to_stop_leaves_after_the_window_in_hand(scene: Scene, files: list[Path]) -> None:
    [job] = scene.submit(files[2])
    scene.hold_after(0)
    worker = scene.start(until_done=False)
    wait_until_working(scene)
    worker.terminate()
    assert ended(worker) == 0
    assert (scene.heard(), scene.events()[-1]) == (BATCH, "left")
    with AudioStorageSystem(scene.home) as storage:
        assert storage.jobs.get(job.id).state is JobState.WAITING and storage.jobs.workers() == []
    scene.finish()
    scene.check([files[2].name])
    assert scene.heard() == SIZES[2]


def test_the_command_leaves_in_good_order_too(small: Scene, files: list[Path]) -> None:
    small.submit(files[2])
    small.hold_after(0)
    worker = command(small)
    wait_until_working(small)
    worker.terminate()
    output, _ = worker.communicate(timeout=120)
    assert worker.returncode == 0 and '"unfinished": 1' in output
    small.finish()
    small.check([files[2].name])
    assert small.heard() == SIZES[2]


def command(scene: Scene) -> subprocess.Popen[str]:
    """The program as people start it."""
    program = [sys.executable, working.__file__, str(scene.scratch / "heard"), str(scene.scratch / "most")]
    environment = {**os.environ, "AUDIO_STORAGE_TRANSCRIBER": "scripted"}
    return subprocess.Popen(
        [*program, "worker", "--archive", str(scene.home), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def test_workers_may_have_the_same_name(scene: Scene, files: list[Path]) -> None:
    scene.submit(*files)
    first, second = (scene.start(name="twin", milliseconds=100) for _ in range(2))
    wait_until_working(scene, 4)
    scene.kill(first, "twin")
    assert ended(second) == 0
    scene.check()


def test_a_recording_that_kills_its_workers_is_given_up_and_others_are_done(small: Scene, files: list[Path]) -> None:
    jobs = small.submit(*files)
    with AudioStorageSystem(small.home) as storage:
        deadly = working.first_window(storage, jobs[1].audio_id)
    for _ in range(150):
        if (how := ended(small.start(deadly=(deadly,), concurrency=2, milliseconds=300))) == 0:
            break
        assert how == KILLED
        small.killed.append("by the recording")
    assert how == 0
    with AudioStorageSystem(small.home) as storage:
        ends = {job.audio_id: (job.state, job.code) for job in storage.jobs.find()}
        dead = ends.pop(jobs[1].audio_id)
        assert dead == (JobState.FAILED, "worker_died")
        assert set(ends.values()) == {(JobState.DONE, None)}
        storage.jobs.retry(jobs[1].id)
    small.finish()
    small.check()


def test_the_wall_clock_may_jump(scene: Scene, files: list[Path], seed: int) -> None:
    at_random(scene, files, workers=2, kills=4, seed=seed, jumps=seed)


def test_what_a_worker_took_and_could_not_begin_goes_back(small: Scene, files: list[Path]) -> None:
    small.submit(files[0])
    assert ended(small.start(drops=1)) == 0
    small.check([files[0].name])


# The archive's own database, store and disk


def test_the_server_may_be_restarted_in_the_middle(small: Scene, files: list[Path]) -> None:
    with started() as server:
        assert server.folder
        small.home.mkdir()
        (small.home / FILE).write_text(f'database_url = "{server.url()}"\n')
        small.submit(*files)
        small.hold_after(2)
        team = [small.start(milliseconds=300) for _ in range(2)]
        for heard, most in ((3, 6), (7, 100)):
            wait_until_working(small, heard)
            restart(small, server, most)
        small.killed += small.killed  # each of two workers may repeat a batch
        assert [ended(process) for process in team] == [0, 0]
        assert not {"failed", "again"} & {event.split()[0] for event in small.events()}
        small.check()


def restart(scene: Scene, server: Server, most: int) -> None:
    """Of the server, which a worker wants in between."""
    waited = scene.waiting()
    Programs.found().stop(server.folder, "immediate")
    scene.hold_after(most)
    scene.wait_for(lambda: scene.waiting() > waited)
    Programs.found().start(server.folder, server.port)
    scene.killed.append("the server")


def test_a_store_may_fail_now_and_then(
    small: Scene, files: list[Path], bad_day: faulty.Day, s3_url: str, seed: int
) -> None:
    small.home.mkdir()
    (small.home / FILE).write_text(f'blobs_url = "{s3_url}"\nblob_cache_bytes = 0\n')
    draw = random.Random(seed)

    def now_and_then(method: str, path: str, number: int) -> faulty.Fault:
        return draw.choice([None] * 12 + [500, 503, "silence", "half" if method == "GET" else "lost"])

    small.submit(*files)
    team = [small.start(milliseconds=200) for _ in range(2)]
    wait_until_working(small)
    bad_day.fault = now_and_then
    wait_until_working(small, 5)
    small.kill(team.pop(), "one of two")
    bad_day.fault = lambda method, path, number: "silence"  # nothing works any more
    time.sleep(4)
    bad_day.fault = now_and_then
    assert ended(team[0]) == 0
    assert not {"failed", "again"} & {event.split()[0] for event in small.events()}, small.events()
    bad_day.fault = lambda method, path, number: None
    small.check()


def test_the_disk_may_be_full_in_the_middle(small: Scene, files: list[Path]) -> None:
    with disk(small.home, "24m"):
        small.submit(*files)
        small.hold_after(2)
        worker = small.start()
        wait_until_working(small, 3)
        fill(small.home / "filler")
        small.go_on()
        small.wait_for(small.waiting)
        time.sleep(2)
        (small.home / "filler").unlink()
        assert ended(worker) == 0
        assert not {"failed", "again"} & {event.split()[0] for event in small.events()}, small.events()
        small.killed.append("the disk")
        small.check()
