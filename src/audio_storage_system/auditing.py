"""The board of the audit log: list, verify, anchor and export it."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

from audio_storage_system import audit
from audio_storage_system.archive import Archive
from audio_storage_system.audit import Anchor, AuditLog, AuditReport, Entry, listing
from audio_storage_system.audit.anchors import MAX_BYTES, parse
from audio_storage_system.durable import disk_errors
from audio_storage_system.errors import Conflict, InvalidInput, TooLarge

Format = Literal["jsonl", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)
MAX_LIMIT = 10_000
# A program that shows tables takes text that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries, the latest first; `cursor` brings the next page, `None` where there is none."""

    entries: tuple[Entry, ...]
    cursor: int | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"entries": [entry.as_dict() for entry in self.entries], "cursor": self.cursor}


class AuditBoard:
    """The audit log of an archive, for who may do what concerns the whole archive: others get `Forbidden`. Where none
    is kept, everything here raises `Conflict`."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    @property
    def kept(self) -> bool:
        """Whether the log is kept: in an archive that has keys."""
        return self._archive.audit_log is not None

    def list(
        self,
        *,
        audio_id: int | None = None,
        principal: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        cursor: int | None = None,
    ) -> AuditPage:
        """Entries, the latest first: of one recording, of one principal by name, of one action (`recording.` stands for
        all that begin so), from `since` until before `until`. cursor: of the page before. Raises `InvalidInput`."""
        log = self._log("read the audit log")
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidInput(reason=f"limit is from 1 to {MAX_LIMIT}")
        wanted = listing.Wanted(audio_id, principal, action, since, until)
        self._archive.audit.read("audit.listed", audio_id)
        log.flush()
        found = listing.latest(log.database, wanted, limit + 1, cursor)
        return AuditPage(tuple(found[:limit]), found[limit - 1].id if len(found) > limit else None)

    def verify(
        self,
        anchors: Sequence[Anchor | Mapping[str, Any] | str | os.PathLike[str]] = (),
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> AuditReport:
        """Compute every chain of the log again, and compare it with anchors (or what their `as_dict` gave, or files of
        `anchor`): what was changed, removed, reordered, put in, or cut off behind an anchor. `progress` is called with
        the entries read so far, and all there are. Raises `InvalidInput` for what is no anchor of this archive."""
        log = self._log("verify the audit log")
        given = [self._anchor(one) for one in anchors]
        log.flush()
        return audit.verify(log.database, log.keys, given, progress)

    def heads(self) -> Anchor:
        """How far each chain has come by now: an anchor."""
        log = self._log("anchor the audit log")
        log.flush()
        with log.database.read() as connection:
            return audit.heads(connection, log.keys)

    def anchor(self, path: str | os.PathLike[str]) -> Anchor:
        """Write `heads` into a file, to be kept where nobody who can write the archive can change it. A file that is
        there is not replaced: `InvalidInput`."""
        made = self.heads()
        data = json.dumps(made.as_dict(), indent=1).encode()
        _write_new(Path(path), data)
        return made

    def export(
        self,
        target: str | os.PathLike[str] | TextIO,
        format: Format = "jsonl",
        *,
        audio_id: int | None = None,
        principal: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> int:
        """Write entries, the oldest first, into a file (one that is there is not replaced) or a text stream: as lines
        of JSON (`jsonl`) or as `csv`; how many. Which: as of `list`."""
        log = self._log("export the audit log")
        if format not in FORMATS:
            raise InvalidInput(reason=f'There is no format "{format}"; there are: {", ".join(FORMATS)}')
        wanted = listing.Wanted(audio_id, principal, action, since, until)
        self._archive.audit.read("audit.exported", audio_id, format=format)
        log.flush()
        with _opened(target) as stream:
            return _WRITERS[format](stream, listing.each(log.database, wanted))

    def _log(self, action: str) -> AuditLog:
        self._archive.access.require_admin(action)
        if self._archive.audit_log is None:
            raise Conflict(
                reason="This archive keeps no audit log. It does from now on after: audio-storage init --audit"
            )
        return self._archive.audit_log

    def _anchor(self, given: Anchor | Mapping[str, Any] | str | os.PathLike[str]) -> Anchor:
        if isinstance(given, Anchor):
            return given
        if isinstance(given, Mapping):
            return Anchor.read(given, self._log("verify the audit log").keys)
        return self._read(Path(given))

    def _read(self, path: Path) -> Anchor:
        log = self._log("verify the audit log")
        try:
            if path.stat().st_size > MAX_BYTES:
                raise TooLarge(what=path.name, limit=f"{MAX_BYTES:,} bytes")
            text = path.read_bytes()
        except OSError as error:
            raise InvalidInput(reason=f"The anchor {path} cannot be read: {error.strerror}") from error
        return parse(text, log.keys)


@contextmanager
def _opened(target: str | os.PathLike[str] | TextIO) -> Iterator[TextIO]:
    if not isinstance(target, str | os.PathLike):
        yield target
        return
    path = Path(target)
    with disk_errors(path), _new(path) as file:
        yield file


def _new(path: Path) -> TextIO:
    try:
        return path.open("x", encoding="utf-8", newline="")
    except FileExistsError:
        raise InvalidInput(reason=f"There is a file {path} already") from None


def _write_new(path: Path, data: bytes) -> None:
    with disk_errors(path):
        try:
            with path.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            raise InvalidInput(reason=f"There is a file {path} already") from None


def _write_jsonl(stream: TextIO, entries: Iterator[Entry]) -> int:
    count = 0
    for entry in entries:
        stream.write(json.dumps(entry.as_dict(), ensure_ascii=True) + "\n")
        count += 1
    return count


def _write_csv(stream: TextIO, entries: Iterator[Entry]) -> int:
    writer, count = csv.writer(stream, lineterminator="\n"), 0
    writer.writerow(Entry.__slots__)
    for entry in entries:
        writer.writerow([_cell(value) for value in asdict(entry).values()])
        count += 1
    return count


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    if isinstance(value, datetime):
        return value.isoformat()
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


_WRITERS: dict[Format, Callable[[TextIO, Iterator[Entry]], int]] = {"jsonl": _write_jsonl, "csv": _write_csv}
