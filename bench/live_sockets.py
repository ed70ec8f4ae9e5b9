"""Live sockets of a real server: how soon words come back, whether sound is whole, what a session costs.

    python bench/live_sockets.py --folder FOLDER [--parts latency,capture] [--seconds 60] [--sessions 3] [--workers 2]

- latency: so many `--sessions` at once, fed over WebSockets in real time; as `bench/live.py`, by the client's clock
- capture: `--captures` sessions at once in real time, half of them as a browser's WebM; every one's line is cut (RST)
  in the middle and the session resumed: what is missing of its sound (nothing may be), and the server's share of a core
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from audio_storage_system.live import Event, Final, Partial
from audio_storage_system.records import Segment, Word
from live import (
    BLOCK,
    BLOCK_SECONDS,
    FINAL_SECONDS,
    PARTIAL_SECONDS,
    RATE,
    feed,
    final_delays,
    partial_delays,
    talk,
    together,
)
from measuring import children_of, machine, verdict

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from talking import recorded

Told = list[tuple[float, Event]]


@contextmanager
def server(folder: Path, workers: int) -> Iterator[tuple[str, int]]:
    """The address of one over a new archive, and its process."""
    command = [sys.executable, "-m", "audio_storage_system.cli", "serve", "--json", "--port", "0", "--no-worker"]
    command += ["--archive", str(folder), "--workers", str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = json.loads(process.stdout.readline())["url"]
            httpx.get(f"{url}/health/ready", timeout=300)
            time.sleep(5.0)  # and the other processes
            yield url.replace("http", "ws", 1), process.pid
        finally:
            process.send_signal(signal.SIGTERM)


def event_of(message: dict[str, Any]) -> Event | None:
    """The event that a message is, as far as it is measured."""
    kind = message.pop("type")
    if kind == "partial":
        return Partial(**message)
    if kind != "final":
        return None
    segments = tuple(Segment(**{**one, "words": tuple(Word(**w) for w in one["words"])}) for one in message["segments"])
    return Final(**{**message, "segments": segments})


def listen(connection: ClientConnection, told: Told, known: dict[str, Any]) -> None:
    """Note what comes, until the socket closes."""
    try:
        for text in connection:
            at, message = time.monotonic(), json.loads(text)
            if message["type"] in ("started", "ended", "error"):
                known[message["type"]] = message
            elif event := event_of(message):
                told.append((at, event))
    except ConnectionClosed:
        return


@contextmanager
def talking(url: str, query: str, told: Told, known: dict[str, Any]) -> Iterator[ClientConnection]:
    with connect(f"{url}/api/v1/live?{query}", max_size=None, open_timeout=60) as connection:
        listener = threading.Thread(target=listen, args=(connection, told, known))
        listener.start()
        yield connection
        listener.join(60)


def latency(folder: Path, seconds: float, sessions: int, workers: int) -> None:
    heard: list[tuple[Told, float]] = []
    with server(folder / "latency", workers) as (url, _):

        def speak(seed: int) -> None:
            told: Told = []
            with talking(url, f"sample_rate={RATE}", told, {}) as connection:
                time.sleep(5.0)  # its recogniser is ready
                zero = time.monotonic() - BLOCK_SECONDS
                feed(connection.send, talk(seconds, seed))
                connection.send('{"type": "finish"}')
            heard.append((told, zero))

        together(speak, sessions)
    partials = [delay for told, begun in heard for delay in partial_delays(told, begun)]
    finals = [delay for told, begun in heard for delay in final_delays(told, begun)]
    print(f"\n## {sessions} sockets at once, {seconds:.0f} s each\n\n| | number | p50, s | p95, s |\n|---|---|---|---|")
    for name, delays in (("word to partial text", partials), ("last word to final and searchable", finals)):
        print(f"| {name} | {len(delays)} | {np.median(delays):.2f} | {np.percentile(delays, 95):.2f} |")
    verdict("partial text after the words, p95", float(np.percentile(partials, 95)), PARTIAL_SECONDS, unit=" s")
    verdict("final and searchable, p95", float(np.percentile(finals, 95)), FINAL_SECONDS, unit=" s")


def cut(connection: ClientConnection) -> None:
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.socket.close()


def capture(folder: Path, seconds: float, sessions: int, workers: int) -> None:
    missing: list[float] = []
    with server(folder / "capture", workers) as (url, process):
        before = _cpu_seconds(process)

        def speak(seed: int) -> None:
            sound = talk(seconds, seed)
            coded = recorded("webm", np.frombuffer(sound, "<i2"), RATE) if seed % 2 else sound
            encoding, known = ("webm" if seed % 2 else "pcm16"), dict[str, Any]()
            size = max(1, round(len(coded) * BLOCK_SECONDS / seconds)) if seed % 2 else 2 * BLOCK
            parts = [coded[begin : begin + size] for begin in range(0, len(coded), size)]
            half = len(parts) // 2
            with talking(url, f"encoding={encoding}&sample_rate={RATE}&channels=1", [], known) as connection:
                _in_time(connection, parts[:half])
                cut(connection)
            again = f"encoding={encoding}&session={known['started']['session_id']}&begins=0"
            with talking(url, again, [], known) as connection:
                for part in parts[:half]:
                    connection.send(part)
                _in_time(connection, parts[half:])
                connection.send('{"type": "finish"}')
            report = known["ended"]
            missing.append(report["missing_seconds"] + abs(seconds - report["seconds"]))

        together(speak, sessions)
        spent = _cpu_seconds(process) - before
    print(f"\n## {sessions} sockets captured at once, {seconds:.0f} s each, each cut once\n")
    print(f"the server's processes took {spent / seconds / sessions:.3f} of a core for each, recognisers not counted")
    verdict("seconds missing of the worst", max(missing), 0.05, unit=" s")


def _in_time(connection: ClientConnection, parts: list[bytes]) -> None:
    begun = time.monotonic()
    for number, part in enumerate(parts):
        time.sleep(max(0.0, begun + number * BLOCK_SECONDS - time.monotonic()))
        connection.send(part)


def _cpu_seconds(server: int) -> float:
    """Of the processes below the server that are there now."""
    spent = 0
    for process in children_of(server):
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder for the archives")
    parser.add_argument("--parts", default="latency,capture")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--sessions", type=int, default=3)
    parser.add_argument("--captures", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    print(machine(given.folder))
    parts = given.parts.split(",")
    if "latency" in parts:
        latency(given.folder, given.seconds, given.sessions, given.workers)
    if "capture" in parts:
        capture(given.folder, given.seconds, given.captures, given.workers)


if __name__ == "__main__":
    main()
