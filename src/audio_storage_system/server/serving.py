"""The processes of the server: web processes, and beside them one that does the jobs."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from audio_storage_system import AudioStorageSystem
from audio_storage_system.errors import InvalidInput, InvalidSetting
from audio_storage_system.served import noted
from audio_storage_system.server.app import PLACE
from audio_storage_system.server.gate import LOOPBACK
from audio_storage_system.server.live import UVICORN
from audio_storage_system.server.protocol import MOST_CONNECTIONS

logger = logging.getLogger(__name__)

PORT = 8765
STARTED_AGAIN_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
STOP_SECONDS = 30.0
# Importing takes seconds, on a busy machine many: a web process that is silent for so long is replaced.
SILENT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Options:
    """How to serve. port: 0 for any that is free. workers: web processes. work: also do jobs, in a process of its
    own."""

    host: str = "127.0.0.1"
    port: int = PORT
    workers: int = 1
    work: bool = True


class _Processes(Multiprocess):
    """uvicorn's web processes. By itself it holds both ends of the line on which it asks each for a sign of life, and
    so waits for one that died meanwhile as long as for one that is only slow."""

    def init_processes(self) -> None:
        super().init_processes()
        self._hear_of_ends()

    def keep_subprocess_alive(self) -> None:
        super().keep_subprocess_alive()
        self._hear_of_ends()

    def _hear_of_ends(self) -> None:
        for process in self.processes:
            process.child_conn.close()


def serve(place: str | None, options: Options, ready: Callable[[str], None] = lambda url: None) -> None:
    """Serve the archive at `place`, which is made when it does not exist, until SIGINT or SIGTERM. `ready` is told the
    address, once connections are accepted there.

    Raises `InvalidSetting` for an address that others reach while no token was ever made, `InvalidInput` for one that
    cannot be listened on, and what opening the archive raises.
    """
    home, proxies = _check(place, options)
    os.environ[PLACE] = place or ""
    app = "audio_storage_system.server.app:from_environment"
    config = configuration(app, factory=True, workers=options.workers, proxies=proxies)
    with (
        _ending_in_order(),
        _listening(options) as listening,
        noted(home, options.host, port := listening.getsockname()[1]),
        _working(place, wanted=options.work),
    ):
        ready(_url(options.host, port))
        if options.workers > 1:
            _Processes(config, [listening]).run()
        else:
            uvicorn.Server(config).run([listening])


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the block, with the exit code 0 of services. uvicorn raises the signal that ended it once
    more, and nothing would be put away after SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: sys.exit(0)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def configuration(app: Any, *, proxies: str = "", **further: Any) -> uvicorn.Config:
    """How uvicorn serves the application: bounded, and without a log of what is asked. proxies: the addresses of those
    that are believed where a request comes from."""
    return uvicorn.Config(
        app,
        http="audio_storage_system.server.protocol:BoundedProtocol",
        limit_concurrency=MOST_CONNECTIONS,
        log_level="warning",
        access_log=False,  # searches stand in the addresses
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies or None,
        timeout_graceful_shutdown=int(STOP_SECONDS),
        timeout_worker_healthcheck=SILENT_SECONDS,
        **UVICORN,
        **further,
    )


def _check(place: str | None, options: Options) -> tuple[Path, str]:
    """The archive's folder, and the proxies that its settings trust. Raises `InvalidSetting`."""
    with AudioStorageSystem(place) as storage:
        if options.host not in LOOPBACK and not storage.tokens.any():
            reason = (
                f"others reach {options.host}, and this archive asks nobody for a token yet. Make one with: "
                "audio-storage tokens create"
            )
            raise InvalidSetting(name="host", reason=reason)
        return storage.home, storage.settings.trusted_proxies


@contextmanager
def _listening(options: Options) -> Iterator[socket.socket]:
    try:
        family = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0][0]
        made = socket.create_server((options.host, options.port), family=family, backlog=2048)
    except OSError as error:
        where = _url(options.host, options.port)
        raise InvalidInput(reason=f"{where} cannot be listened on: {error.strerror or error}") from error
    with made:
        made.set_inheritable(True)
        yield made


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _working(place: str | None, *, wanted: bool) -> Iterator[None]:
    """A process that does the jobs, for as long as the block; started again should it die."""
    if not wanted:
        yield
        return
    child = _JobWorker(place)
    thread = threading.Thread(target=child.keep_running, name="job worker", daemon=True)
    thread.start()
    try:
        yield
    finally:
        child.stop()
        thread.join(STOP_SECONDS)


class _JobWorker:
    """The command `worker` as a child: it ends with this process, however that ends, as its input does."""

    def __init__(self, place: str | None) -> None:
        self._command = [sys.executable, "-m", "audio_storage_system.cli", "worker", "--while-input"]
        self._command += ["--archive", place] if place else []
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def keep_running(self) -> None:
        """Start it, and again after it has died, later each time."""
        pauses = iter(STARTED_AGAIN_SECONDS)
        while not self._stopping.is_set():
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)  # noqa: S603 - this program
            code = self._process.wait()
            if not self._stopping.is_set():
                logger.warning("The process that does the jobs ended with code %d and is started again", code)
                self._stopping.wait(next(pauses, STARTED_AGAIN_SECONDS[-1]))

    def stop(self) -> None:
        """Have it give back what is in hand and end; a busy one is killed after a while."""
        self._stopping.set()
        if (process := self._process) is None:
            return
        if process.stdin:
            process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
