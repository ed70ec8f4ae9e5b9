"""The bytes of one recording, from one blob store into the other, under the same key."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import BinaryIO

from sqlalchemy import select

from audio_storage_system.blobs import StagedBlob
from audio_storage_system.catalogue import locks
from audio_storage_system.database.tables import audio_files
from audio_storage_system.errors import InvalidInput, NotFound, SealBroken
from audio_storage_system.transfer.pair import Pair
from audio_storage_system.transfer.rows import Row

OTHER_BYTES = "the destination holds other bytes under this key"
# How often, and how soon, to look again where that is so: another copy may be about to take them away.
LOOKS, LOOK_AGAIN_SECONDS = 5, 0.2


@dataclass(frozen=True, slots=True)
class Brought:
    """What became of it. `there`: the destination has the bytes, read back. `sent`: bytes copied. `problem`: why not;
    `None` also where the recording was deleted meanwhile. file_hash, blob_id: of the bytes at the destination."""

    audio_id: int
    key: str
    there: bool
    sent: int | None = None
    problem: str | None = None
    file_hash: str = ""
    blob_id: str = ""


class _Refused(Exception):
    """Why a recording cannot be copied."""


def bring(pair: Pair, row: Row) -> Brought:
    """Have the recording's bytes at the destination: copied, or found there. Nothing is ever overwritten. Safe to call
    from several threads, and from several copies at once: one that has a key for a moment gives it back."""
    brought = _bring(pair, row)
    for _ in range(LOOKS):
        if brought.problem != OTHER_BYTES:
            break
        time.sleep(LOOK_AGAIN_SECONDS)
        brought = _bring(pair, row)
    return brought


def _bring(pair: Pair, row: Row) -> Brought:
    this = row["id"], row["file_path"]
    try:
        sent = None if pair.destination.blobs.has(row["file_path"]) else _send(pair, row)
        found = pair.destination.blobs.describe(row["file_path"])
    except _Refused as error:
        return Brought(*this, there=False, problem=str(error))
    except InvalidInput as error:  # a key that leads out of the archive: somebody else wrote this row
        return Brought(*this, there=False, problem=error.message)
    except SealBroken:
        return Brought(*this, there=False, problem=OTHER_BYTES)
    except NotFound:  # at the destination: what was there a moment ago was being deleted, and comes with the next copy
        return Brought(*this, there=False)
    if pair.source.blobs.fingerprint(found.sha256) != row["file_hash"]:
        return Brought(*this, there=False, problem=OTHER_BYTES)
    file_hash = pair.destination.blobs.fingerprint(found.sha256)
    return Brought(*this, there=True, sent=sent, file_hash=file_hash, blob_id=found.blob_id)


def _send(pair: Pair, row: Row) -> int | None:
    """Copy the bytes, unless they are not what their hash says; how many, `None` where others were faster."""
    try:
        file = pair.source.blobs.open(row["file_path"])
    except NotFound as error:
        if _is_deleted(pair, row["id"]):
            raise
        raise _Refused("its file is missing at the source") from error
    except SealBroken as error:
        raise _Refused(f"its file at the source is damaged: {error.message}") from error
    with file:
        staged = _stage(pair, file)
    if pair.source.blobs.fingerprint(staged.sha256) != row["file_hash"]:
        pair.destination.blobs.discard(staged)
        raise _Refused(f"its file at the source is damaged: {staged.size:,} bytes whose hash is not the one stored")
    return staged.size if _publish(pair, staged, row["file_path"]) else None


def _stage(pair: Pair, file: BinaryIO) -> StagedBlob:
    try:
        return pair.destination.blobs.stage(file)
    except OSError as error:  # of the source: the destination's own are of our tree
        raise _Refused(f"its file at the source cannot be read: {error.strerror}") from error
    except SealBroken as error:
        raise _Refused(f"its file at the source is damaged: {error.message}") from error


def _is_deleted(pair: Pair, audio_id: int) -> bool:
    with pair.source.database.read() as connection:
        return connection.execute(select(audio_files.c.id).where(audio_files.c.id == audio_id)).first() is None


def _publish(pair: Pair, staged: StagedBlob, key: str) -> bool:
    """Give staged bytes this very key, unless it was taken meanwhile; whether they have it now.

    Not in a transaction: it takes as long as an upload does. Of two copies at once one may get another key for a while,
    which it gives back.
    """
    blobs = pair.destination.blobs
    with pair.destination.database.write(locks.of_blob(key)):
        taken = blobs.has(key)
    if taken:
        blobs.discard(staged)
        return False
    try:
        given = blobs.publish(staged, key)
    except BaseException:
        blobs.discard(staged)
        raise
    if given != key:
        blobs.delete(given)
    return given == key
