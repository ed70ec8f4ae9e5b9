"""Searches over HTTP, against the same calls of the library, and how many of them a server answers in a second.

    python bench/server_search.py --folder /somewhere/large --data ../shared/data [--rows 100000] [--seconds 20]

Makes an archive once (in --folder): --rows passages of 100 words cut at random from real earnings calls and meetings,
embedded with the bundled model. Then it asks real questions about meetings, each by the library and over HTTP in turn,
with a token, as its owner and as an administrator, and tells what HTTP adds. Last it asks the command `serve` with one
web process and with two as fast as --clients connections can, whose own work runs on the same machine. What a search
costs is told beside it: a request that searches nothing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np

from audio_storage_system import AudioStorageSystem
from audio_storage_system.archive import Archive
from audio_storage_system.catalogue import embeddings, passages, recordings, transcripts
from audio_storage_system.catalogue.embeddings import NewEmbedding
from audio_storage_system.clock import utc_now
from audio_storage_system.passages import Grouper
from audio_storage_system.records import OWNER_ID, AudioInfo, Outcome, Segment, Span
from measuring import machine, verdict
from search import corpus, questions, texts

PASSAGES, SECONDS = 100, 40.0  # of a recording, and of a passage
INFO = AudioInfo(PASSAGES * SECONDS, 16_000, 1, "pcm_s16le", "audio/wav")
ADDED_MS, PER_SECOND = 3.0, 200.0


def prepare(folder: Path, data: Path, rows: int) -> Path:
    """The archive, made once."""
    home, unfinished = folder / f"served-{rows}", folder / f"served-{rows}.unfinished"
    if home.exists():
        return home
    began = time.perf_counter()
    with AudioStorageSystem(unfinished) as storage:
        pieces = [text for _, text in texts(corpus(data), rows)]
        for start in range(0, rows, PASSAGES):
            _enter(storage._archive, start // PASSAGES, pieces[start : start + PASSAGES])
        storage.reindex()
    print(f"built {rows:,} passages in {time.perf_counter() - began:.0f} s", flush=True)
    return unfinished.rename(home)


def _enter(archive: Archive, number: int, said: list[str]) -> None:
    space, embedder = archive.spaces.text()
    vectors = embedder.embed_batch(said)
    with archive.database.write() as connection:
        audio_id = recordings.add(
            connection,
            owner_id=OWNER_ID,
            file_hash=f"{number:064x}",
            file_path=f"nowhere/{number}.wav",
            file_size=1,
            original_name=f"meeting {number}.wav",
            info=INFO,
            recorded_at=utc_now(),
            offset_minutes=None,
            values={"bucket": number % 100},
        )
        version = {"asked": "base", "engine": "bench", "parameters": {}, "language": "en"}
        transcript_id = transcripts.start(connection, audio_id, **version)  # type: ignore[arg-type]
        pieces = [Segment(i * SECONDS, (i + 1) * SECONDS, text) for i, text in enumerate(said)]
        kept = transcripts.commit_window(connection, transcript_id, 0, Span(0, pieces[-1].end), pieces, 0)
        transcripts.finish(connection, transcript_id, outcome=Outcome.OK, reason=None)
        closed = [passage for i, segment in enumerate(kept) for passage in _alone(i, segment)]
        belongs: Any = {"transcript_id": transcript_id, "audio_id": audio_id}
        ids = passages.add(connection, closed, owner_id=OWNER_ID, language="en", **belongs)
        new = [NewEmbedding(Span(p.start, p.end), id_, row) for p, id_, row in zip(closed, ids, vectors, strict=True)]
        embeddings.add(connection, space, new, **belongs)
        transcripts.activate(connection, transcript_id)


def _alone(sequence: int, segment: Segment) -> list[Any]:
    grouper = Grouper(sequence=sequence)
    return [*grouper.push([segment]), *grouper.finish()]


def tokens(storage: AudioStorageSystem) -> dict[str, str]:
    """A token of the archive's owner, and one of somebody who may read everything."""
    if all(user.name != "reader" for user in storage.users.list()):
        storage.users.add("reader")
        storage.grants.give("reader", "admin", everything=True)
    return {"owner": storage.tokens.create().secret, "administrator": storage.tokens.create("reader").secret}


class Connection:
    """One connection to the server, kept open."""

    def __init__(self, url: str, token: str) -> None:
        place = urlsplit(url)
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str, **params: object) -> bytes:
        """The answer."""
        self._connection.request("GET", f"{path}?{urlencode(params)}", headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {body[:500]!r}")
        return body

    def search(self, text: str) -> bytes:
        """Ten hits."""
        return self.get("/api/v1/search", text=text)


@contextmanager
def served(home: Path, workers: int) -> Iterator[str]:
    """The address of the command `serve`."""
    command = [sys.executable, "-m", "audio_storage_system.cli", "serve", "--json", "--port", "0", "--no-worker"]
    command += ["--archive", str(home), "--workers", str(workers)]
    environment = {"AUDIO_STORAGE_REQUESTS_PER_MINUTE": "0"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
            process.wait(60)


def milliseconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)


def compare(who: str, asked: list[str], view: AudioStorageSystem, connection: Connection) -> None:
    """Each question by either way in turn, after all were asked once."""
    ways: list[Callable[[str], object]] = [view.search_similar_audio, connection.search]
    for way in ways:
        for text in asked:
            way(text)
    took = np.array([[milliseconds(lambda way=way, text=text: way(text)) for way in ways] for text in asked])  # type: ignore[misc]
    nothing = np.median([milliseconds(lambda: connection.get("/health/live")) for _ in asked])
    for name, column in zip(("library", "HTTP"), took.T, strict=True):
        p50, p95 = np.quantile(column, [0.5, 0.95])
        print(f"{who:14} {name:8} p50 {p50:6.2f} ms   p95 {p95:6.2f} ms")
    print(f"{who:14} a request that searches nothing: {nothing:.2f} ms")
    verdict(f"{who}: HTTP adds at p50", float(np.median(took[:, 1]) - np.median(took[:, 0])), ADDED_MS, unit="ms")


def storm(url: str, token: str, asked: list[str], clients: int, seconds: float) -> float:
    """Searches in a second."""
    counts, until = [0] * clients, time.perf_counter() + seconds

    def ask(number: int) -> None:
        connection = Connection(url, token)
        for text in cycle(asked[number:] + asked[:number]):
            if time.perf_counter() > until:
                return
            connection.search(text)
            counts[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    home, asked = prepare(given.folder, given.data, given.rows), questions(given.data)[: given.queries]
    with AudioStorageSystem(home) as storage:
        secrets = tokens(storage)
        with served(home, 1) as url:
            for who, secret in secrets.items():
                compare(who, asked, storage.tokens.authenticate(secret), Connection(url, secret))
    for workers in (1, 2):
        with served(home, workers) as url:
            storm(url, secrets["administrator"], asked, given.clients, min(5.0, given.seconds))  # every process warm
            rate = storm(url, secrets["administrator"], asked, given.clients, given.seconds)
        verdict(
            f"{workers} web process(es), {given.clients} clients", rate, PER_SECOND, at_least=True, unit="searches/s"
        )
    print(machine(given.folder))


if __name__ == "__main__":
    main()
