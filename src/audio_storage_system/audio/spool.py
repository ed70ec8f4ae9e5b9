"""Captured sound on its way into the archive: small durable pieces in a folder of their own.

A spool is a folder with

    manifest.json    {"format": "pcm_s16le", "version": 1, "started_at", "utc_offset_minutes", "sample_rate",
                     "channels", "pid", "metadata"}, written once, before any sound
    lock             locked as long as the writer lives; whoever recovers the spool locks it in turn
    000001.pcm …     interleaved little-endian 16-bit samples, half a second each, written as they arrive and synced
                     when full
    pieces.jsonl     one synced line per finished piece: {"piece", "first", "frames", "crc32"}

A frame is one sample of each channel. `first` is the piece's place in the frames that the device delivered or said it
lost, so pieces that do not follow on each other prove how much is missing between them; a line with no frames, and no
file, notes at once what the device lost. A piece without a line is the one being written when the writer died: its
whole frames count, a torn last frame is dropped.

In an encrypted archive (version 2) the manifest is {"format", "version", "spool_id", "number", "sealed"} and a line of
the journal {"number", "sealed"}, with all else in `sealed`, in base64; a piece is a row of sealed records, one for each
write (see `spool_seal.py`). So nothing is ever in clear, and no more is lost than without.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from audio_storage_system.audio.joined import Joined
from audio_storage_system.audio.spool_seal import ID_BYTES, Plain, Sealed, Writing, reading
from audio_storage_system.audio.wav import SAMPLE_BYTES, wav_header
from audio_storage_system.clock import utc_now
from audio_storage_system.durable import FileLock, disk_errors, make_folders, sync_folder
from audio_storage_system.errors import ArchiveDamaged
from audio_storage_system.records import Metadata, Span, jsonable

PIECE_SECONDS = 0.5
MANIFEST, LOCK, JOURNAL, DISCARDED = "manifest.json", "lock", "pieces.jsonl", "discarded"
FORMAT = "pcm_s16le"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SpoolReport:
    """What there is in a spool. `missing` counts frames that the device or the disk is known to have lost.

    `gaps` are where they are missing: start in the joined recording, length as it would have been. `torn_bytes` is what
    was cut from a piece whose writer died within a frame.
    """

    frames: int
    missing: int
    sample_rate: int
    pieces: int
    gaps: tuple[Span, ...]
    torn_bytes: int

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate

    @property
    def missing_seconds(self) -> float:
        return self.missing / self.sample_rate

    @property
    def complete(self) -> bool:
        return self.missing == 0


@dataclass(frozen=True, slots=True)
class _Piece:
    """A line of the journal. `crc32` is `None` for a piece without a line, known by its file alone."""

    piece: int
    first: int
    frames: int
    crc32: int | None


class SpoolWriter:
    """Makes the spool `folder`, which must not exist, and appends sound to it. Not for several threads at once.

    key: of an encrypted archive, for spools (32 bytes). Without it the sound lies there as it is.

    What was written is on disk within a second: a piece is synced when it is full or half a second old, if `write` or
    `sync` is called often enough to notice. Raises `StorageFull`, `ArchiveReadOnly`, `StorageFailed`; what is on disk
    stays.
    """

    def __init__(
        self,
        folder: Path,
        sample_rate: int,
        channels: int,
        metadata: Metadata | None = None,
        key: bytes | None = None,
    ) -> None:
        writing: Writing = Plain() if key is None else Sealed(key, os.urandom(ID_BYTES))
        with disk_errors(folder):
            make_folders(folder.parent, private=True)
            folder.mkdir()
            sync_folder(folder.parent)
            lock = FileLock.acquire(folder / LOCK)
            manifest = writing.text(0, _manifest(sample_rate, channels, metadata or {}))
            _write_durably(folder / MANIFEST, {"format": FORMAT, **writing.head, **manifest})
        self._begin(folder, lock, key, writing, sample_rate, channels)

    @classmethod
    def resume(cls, spool: Spool) -> SpoolWriter:
        """Go on with a spool whose writer is gone; its lock goes over to the new writer. Of what is there already
        nothing is changed; the piece that the old writer had open is ended where its whole frames end."""
        writer = cls.__new__(cls)
        writer._begin(spool.folder, spool._lock, spool._key, spool._writing, spool.sample_rate, spool.channels)
        if pieces := spool._pieces():
            last = pieces[-1]
            writer._number, writer._position = last.piece, last.first + last.frames
            writer.frames = writer.synced = sum(piece.frames for piece in pieces)
        with disk_errors(spool.folder):
            writer._lines = spool._last_line()
            os.write(writer._journal, b"\n")  # the last line may be torn
            for piece in pieces:
                if piece.crc32 is None:
                    writer._end_for(piece, spool._read(piece.piece)[0])
        return writer

    def _begin(
        self, folder: Path, lock: FileLock | None, key: bytes | None, writing: Writing, sample_rate: int, channels: int
    ) -> None:
        self.folder, self.sample_rate, self.channels = folder, sample_rate, channels
        self.frames = self.synced = 0
        self._lock, self._key, self._writing = lock, key, writing
        self._frame_bytes = channels * SAMPLE_BYTES
        self._piece_frames = max(1, int(sample_rate * PIECE_SECONDS))
        self._position = self._number = self._lines = 0
        self._piece: _OpenPiece | None = None
        with disk_errors(folder):
            self._journal = os.open(folder / JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def write(self, pcm: bytes) -> None:
        """Append whole frames of interleaved little-endian 16-bit samples."""
        if len(pcm) % self._frame_bytes:
            raise ValueError(f"{len(pcm)} bytes are not whole frames of {self._frame_bytes}")
        view = memoryview(pcm)
        with disk_errors(self.folder):
            while view:
                piece = self._piece = self._piece or self._open_piece()
                room = (self._piece_frames - piece.frames) * self._frame_bytes
                self._append(piece, view[:room])
                view = view[room:]
                self._finish_if_due()

    def skip(self, frames: int) -> None:
        """Note that the device lost `frames` here."""
        with disk_errors(self.folder):
            self._finish_piece()
            self._position += frames
            self._number += 1
            self._enter(_Piece(self._number, self._position, 0, 0))

    def sync(self) -> None:
        """Finish a piece that is half a second old; to be called while no sound arrives."""
        with disk_errors(self.folder):
            self._finish_if_due()

    def flush(self) -> None:
        """Finish the piece under way, whatever its age: all that was written is durable then."""
        with disk_errors(self.folder):
            self._finish_piece()

    def close(self) -> Spool:
        """Make all of it durable and hand the spool over; the lock goes with it. Call it once."""
        try:
            with disk_errors(self.folder):
                self._finish_piece()
        except BaseException:
            self._release()
            raise
        finally:
            os.close(self._journal)
        return Spool(self.folder, self._lock, self._key)

    def _release(self) -> None:
        if self._piece:
            os.close(self._piece.descriptor)
        if self._lock:
            self._lock.release()

    def _open_piece(self) -> _OpenPiece:
        self._number += 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        return _OpenPiece(os.open(_piece_path(self.folder, self._number), flags, 0o666), self._position)

    def _append(self, piece: _OpenPiece, data: memoryview) -> None:
        record = self._writing.record(self._number, piece.records, bytes(data))
        piece.records += 1  # whether it can be written or not: nothing else is ever sealed under this number
        piece.append(record)
        frames = len(data) // self._frame_bytes
        piece.crc32 = zlib.crc32(data, piece.crc32)
        piece.frames += frames
        self._position += frames
        self.frames += frames

    def _finish_if_due(self) -> None:
        piece = self._piece
        if piece and (piece.frames >= self._piece_frames or time.monotonic() - piece.opened_at >= PIECE_SECONDS):
            self._finish_piece()

    def _finish_piece(self) -> None:
        if (piece := self._piece) is None:
            return
        os.fsync(piece.descriptor)
        sync_folder(self.folder)
        self._enter(_Piece(self._number, piece.first, piece.frames, piece.crc32))
        os.close(piece.descriptor)
        self._piece = None
        self.synced = self.frames

    def _end_for(self, piece: _Piece, sound: bytes) -> None:
        """Enter a piece whose writer died before it could."""
        descriptor = os.open(_piece_path(self.folder, piece.piece), os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(self.folder)
        crc32 = zlib.crc32(sound[: piece.frames * self._frame_bytes])
        self._enter(_Piece(piece.piece, piece.first, piece.frames, crc32))

    def _enter(self, piece: _Piece) -> None:
        self._lines += 1  # also where it cannot be written, as for records
        os.write(self._journal, json.dumps(self._writing.text(self._lines, asdict(piece))).encode() + b"\n")
        os.fsync(self._journal)


@dataclass(slots=True)
class _OpenPiece:
    descriptor: int
    first: int
    frames: int = 0
    crc32: int = 0
    records: int = 0
    size: int = 0
    opened_at: float = field(default_factory=time.monotonic)

    def append(self, record: bytes) -> None:
        """Write all of it, or nothing: what follows half a record could not be read."""
        rest = memoryview(record)
        try:
            while rest:
                rest = rest[os.write(self.descriptor, rest) :]
        except OSError:
            os.ftruncate(self.descriptor, self.size)
            os.lseek(self.descriptor, self.size, os.SEEK_SET)
            raise
        self.size += len(record)


class Spool:
    """A finished or abandoned capture. Nothing else recovers it while this object holds its lock.

    key: as that of its writer. Raises `ArchiveDamaged` when the manifest cannot be read.
    """

    def __init__(self, folder: Path, lock: FileLock | None = None, key: bytes | None = None) -> None:
        self.folder = folder
        self._lock = lock
        self._key = key
        manifest, self._writing = _read_manifest(folder, key)
        self.started_at = datetime.fromisoformat(manifest["started_at"])
        self.utc_offset_minutes: int = manifest["utc_offset_minutes"]
        self.sample_rate: int = manifest["sample_rate"]
        self.channels: int = manifest["channels"]
        self.metadata: dict[str, Any] = manifest["metadata"]
        self._frame_bytes: int = self.channels * SAMPLE_BYTES

    @property
    def seconds(self) -> float:
        """How much sound lies here; 0.0 for a capture that ended before it began."""
        return sum(piece.frames for piece in self._pieces()) / self.sample_rate

    @property
    def idle_seconds(self) -> float:
        """For how long nothing has been written here, by the clock of the disk."""
        written = [path.stat().st_mtime for path in (self.folder, *self.folder.glob("*")) if path.name != LOCK]
        return max(0.0, time.time() - max(written))

    def sound_from(self, frame: int) -> Iterator[bytes]:
        """The sound that is here by now from this frame of the joined recording on, a piece at a time; as it was
        written, whoever still writes. Raises `OSError` where it cannot be read."""
        begin = 0
        for piece in self._pieces():
            end = begin + piece.frames
            if end > frame:
                skipped = max(0, frame - begin) * self._frame_bytes
                yield self._read(piece.piece)[0][skipped : piece.frames * self._frame_bytes]
            begin = end

    def open(self) -> tuple[BinaryIO, SpoolReport]:
        """All sound as one WAV file (RF64 above 4 GB), a seekable stream that reads the pieces as it goes, and what is
        in it. Nothing is written.

        Pieces that are missing or damaged (their checksum tells) are left out and reported. Reading raises
        `ArchiveDamaged` where one is damaged later, `OSError` where it cannot be read.
        """
        pieces = self._pieces()
        sound, torn = self._whole(pieces)
        # The time makes every capture a file of its own: two of a muted microphone are not the same recording.
        frames = sum(piece.frames for piece in sound)
        header = wav_header(self.sample_rate, self.channels, frames, self.started_at.isoformat())
        parts = [(piece.frames * self._frame_bytes, partial(self._sound, piece)) for piece in sound]
        joined = Joined([(len(header), lambda: header), *parts])
        return cast(BinaryIO, io.BufferedReader(joined)), self._report(sound, pieces, torn)

    def discard(self) -> None:
        """Remove the spool: its sound is stored elsewhere, or not wanted."""
        with disk_errors(self.folder):
            (self.folder / MANIFEST).replace(self.folder / DISCARDED)
            sync_folder(self.folder)
            self.release()
            _remove(self.folder)

    def release(self) -> None:
        """Let others recover this spool. Without it, that happens when this object or its process ends."""
        if self._lock:
            self._lock.release()

    def _pieces(self) -> list[_Piece]:
        """What the journal tells, completed by the files that it does not name: the one being written at the end."""
        entered = {piece.piece: piece for piece in self._entered()}
        stored = {int(path.stem): path for path in self.folder.glob("*.pcm")}
        pieces: list[_Piece] = []
        end = 0
        for number in sorted({*entered, *stored}):
            piece = entered.get(number) or _Piece(number, end, len(self._read(number)[0]) // self._frame_bytes, None)
            pieces.append(piece)
            end = piece.first + piece.frames
        return pieces

    def _last_line(self) -> int:
        """The highest number that a line of a sealed journal was given, torn ones too: none may be given again."""
        journal = self.folder / JOURNAL
        numbers = re.findall(rb'"number": (\d+)', journal.read_bytes() if journal.exists() else b"")
        return max(map(int, numbers), default=0)

    def _entered(self) -> Iterator[_Piece]:
        journal = self.folder / JOURNAL
        for line in journal.read_bytes().splitlines() if journal.exists() else ():
            try:
                yield _Piece(**self._writing.read(json.loads(line)))
            except (ValueError, TypeError, KeyError):  # torn or damaged: the piece's file speaks for itself
                continue

    def _whole(self, pieces: list[_Piece]) -> tuple[list[_Piece], int]:
        """The pieces that are as they were written, and how many bytes at the ends of these are of no use."""
        whole, torn = [], 0
        for piece in pieces:
            sound, rest = self._read(piece.piece)
            size = piece.frames * self._frame_bytes
            if piece.crc32 is None or zlib.crc32(sound[:size]) == piece.crc32:
                whole.append(piece)
                torn += len(sound) - size + rest
        return whole, torn

    def _sound(self, piece: _Piece) -> bytes:
        """The sound of a piece that was whole a moment ago."""
        size = piece.frames * self._frame_bytes
        sound = self._read(piece.piece)[0][:size]
        if len(sound) < size or (piece.crc32 is not None and zlib.crc32(sound) != piece.crc32):
            raise ArchiveDamaged(place=self.folder, reason=f"piece {piece.piece} changed while it was read")
        return sound

    def _read(self, number: int) -> tuple[bytes, int]:
        path = _piece_path(self.folder, number)
        return self._writing.sound(number, path.read_bytes()) if path.exists() else (b"", 0)

    def _report(self, sound: list[_Piece], pieces: list[_Piece], torn_bytes: int) -> SpoolReport:
        frames = sum(piece.frames for piece in sound)
        end = pieces[-1].first + pieces[-1].frames if pieces else 0
        return SpoolReport(
            frames=frames,
            missing=end - frames,
            sample_rate=self.sample_rate,
            pieces=sum(piece.frames > 0 for piece in sound),
            gaps=tuple(self._gaps(sound, end)),
            torn_bytes=torn_bytes,
        )

    def _gaps(self, sound: list[_Piece], end: int) -> Iterator[Span]:
        joined = expected = 0
        for first, frames in [*((piece.first, piece.frames) for piece in sound), (end, 0)]:
            if first > expected:
                start = joined / self.sample_rate
                yield Span(start, start + (first - expected) / self.sample_rate)
            joined += frames
            expected = first + frames


def find_abandoned(root: Path, key: bytes | None = None) -> list[Spool]:
    """The spools below `root` whose writer is gone, oldest first, locked for the caller. key: as that of the writers.

    A spool without a manifest never held sound. One that cannot be read is left alone, with a warning in the log.
    """
    found = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else ():
        if (lock := _lock_dead(folder)) is None:
            continue
        try:
            found.append(Spool(folder, lock, key))
        except ArchiveDamaged as error:
            lock.release()
            logger.warning("%s", error)
    return sorted(found, key=lambda spool: spool.started_at)


def take_spool(folder: Path, key: bytes | None = None) -> Spool | None:
    """The spool in this folder, locked for the caller; `None` where its writer lives, or there is none. Raises
    `ArchiveDamaged`."""
    lock = _lock_dead(folder)
    if lock is None:
        return None
    try:
        return Spool(folder, lock, key)
    except BaseException:
        lock.release()
        raise


def _lock_dead(folder: Path) -> FileLock | None:
    """The lock of a spool that holds sound and has no owner; a discarded one is removed to its end."""
    if not any((folder / name).exists() for name in (MANIFEST, DISCARDED)):
        return None
    try:
        lock = FileLock.acquire(folder / LOCK)
    except OSError as error:  # just removed by another process, or not ours to open
        logger.info("spool %s: %s", folder, error)
        return None
    if lock and not (folder / MANIFEST).exists():
        lock.release()
        _remove(folder)
        return None
    return lock


def _remove(folder: Path) -> None:
    """Remove a discarded spool, its mark last; what cannot be removed now, the next `find_abandoned` tries again."""
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir(), key=lambda path: path.name == DISCARDED):
            path.unlink(missing_ok=True)
        folder.rmdir()


def _manifest(sample_rate: int, channels: int, metadata: Metadata) -> dict[str, Any]:
    offset = datetime.now().astimezone().utcoffset()
    return {
        "started_at": utc_now().isoformat(),
        "utc_offset_minutes": round(offset.total_seconds() / 60) if offset else 0,
        "sample_rate": sample_rate,
        "channels": channels,
        "pid": os.getpid(),
        "metadata": jsonable(metadata),
    }


def _read_manifest(folder: Path, key: bytes | None) -> tuple[dict[str, Any], Writing]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']} is not known")
        writing = reading(manifest, key)
        return writing.read(manifest), writing
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArchiveDamaged(place=folder, reason=f"{MANIFEST} cannot be read ({error})") from error


def _write_durably(path: Path, data: dict[str, Any]) -> None:
    """In one step: the file has all of `data` or does not exist."""
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def _piece_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06}.pcm"
