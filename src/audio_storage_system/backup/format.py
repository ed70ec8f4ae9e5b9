"""What a backup consists of: the names of its objects, and the manifest of a set. `docs/internals/formats.md` is
normative; `FORMAT` is its version."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Table

from audio_storage_system.database import tables
from audio_storage_system.errors import NewerFormat

FORMAT = 1
MARKER = "backup.json"
SETS, PACKS, BLOBS, VERIFIED, ROTTEN = "sets", "packs", "blobs", "verified", "rotten"
SET_ID = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{8}")
DIGEST = re.compile(r"[0-9a-f]{64}")
# What reading raises where an object is not what was written: whoever can write there can have put anything there.
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)

# In the order of their foreign keys. Left out are what is derived, what lies in other objects, and work in progress.
TABLES: tuple[Table, ...] = (
    tables.principals,
    tables.memberships,
    tables.api_tokens,
    tables.webhooks,
    tables.metadata_schemas,
    tables.embedding_spaces,
    tables.audio_files,
    tables.grants,
    tables.grant_conditions,
    tables.metadata,
    tables.metadata_history,
    tables.transcripts,
    tables.transcription_windows,
    tables.segments,
    tables.passages,
    tables.embeddings,
    tables.annotations,
    tables.trash,
    tables.retention_rules,
    tables.legal_holds,
    tables.retention_runs,
    tables.removals,
    tables.tombstones,
    tables.data_keys,
    tables.audit_log,
    tables.backup_sets,
)
LEFT_OUT = (
    tables.archive,
    tables.change_log,
    tables.index_cursors,
    tables.jobs,
    tables.workers,
    tables.webhook_deliveries,
)
# Whose rows are never changed once they are written, only removed; ids are never used twice. So rows with the ids that
# an earlier set of the same archive has are the rows that it has.
IMMUTABLE = frozenset(
    table.name
    for table in (
        tables.transcription_windows,
        tables.segments,
        tables.passages,
        tables.embeddings,
        tables.metadata_history,
        tables.audit_log,
    )
)
# How many ids a pack spans: some megabytes of rows at most, also where texts and vectors are long.
WINDOW = 2_000
WINDOWS = {"transcripts": 100, "embeddings": 1_000, "segments": 1_000, "audio_files": 1_000}
# The recordings whose audio is in the set, as rows of a table of their own.
BLOB_TABLE, BLOB_COLUMNS = "blobs", ("audio_id", "key", "size", "sha256", "blob_id")


@dataclass(frozen=True, slots=True)
class Part:
    """The rows whose ids are in a window that begins with `start`. ids: the hash of their ids. pack: the name of the
    pack that has them, `size` bytes as it is stored and `text_size` without compression; sets made before that was
    noted do not say."""

    start: int
    rows: int
    ids: str
    pack: str
    size: int
    text_size: int | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """A table cut into windows of `window` ids; empty ones are left out."""

    window: int
    parts: tuple[Part, ...] = ()

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(part.rows for part in self.parts)


@dataclass(frozen=True, slots=True)
class Header:
    """What anyone may read of a set. key_id: of the key that the rest is sealed with; empty for none. keys: the
    text of the archive's `keys.json`, if it has one. expires_at: when pruning removes it, if not by rules."""

    archive_id: str
    set_id: str
    taken_at: datetime
    key_id: str = ""
    keys: str | None = None
    expires_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "format": FORMAT,
            "archive_id": self.archive_id,
            "set_id": self.set_id,
            "taken_at": self.taken_at.isoformat(),
            "key_id": self.key_id,
            "keys": self.keys,
            "expires_at": None if self.expires_at is None else self.expires_at.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Problem:
    """A recording whose audio could not be backed up, and why."""

    audio_id: int
    key: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """What is in a set. revision: of the schema. last_ids: the highest id that each table has ever given. deleted: the
    tombstones of recordings that were deleted while the set was being made. audit: the anchor of the audit
    log, of an archive that keeps one. program: the version that made it."""

    header: Header
    created_at: datetime
    revision: str
    program: str
    tables: Mapping[str, Cut]
    blobs: Cut
    blob_bytes: int
    last_ids: Mapping[str, int]
    deleted: tuple[Mapping[str, Any], ...] = ()
    problems: tuple[Problem, ...] = ()
    audit: Any = None

    @property
    def complete(self) -> bool:
        """Whether the audio of every recording is in it."""
        return not self.problems

    def packs(self) -> set[str]:
        """The names of all its packs."""
        return {part.pack for cut in (*self.tables.values(), self.blobs) for part in cut.parts}


def new_set_id(taken_at: datetime) -> str:
    """`20261128T150000123456Z-1f3a5c7e`: ordered by time."""
    return f"{taken_at:%Y%m%dT%H%M%S%fZ}-{uuid4().hex[:8]}"


def time_of(set_id: str) -> datetime:
    """The time in the id of a set."""
    return datetime.strptime(set_id.partition("Z")[0], "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)


def pack_key(name: str) -> str:
    """Where a pack lies."""
    return f"{PACKS}/{name[:2]}/{name}"


def blob_key(sha256: str) -> str:
    """Where the bytes of a recording lie."""
    return f"{BLOBS}/{sha256[:2]}/{_digest(sha256)}"


def set_key(set_id: str) -> str:
    """Where the manifest of a set lies."""
    return f"{SETS}/{set_id}.json"


def check_format(found: Any, place: str) -> None:
    """Raise `NewerFormat`; `ValueError` for what is no format."""
    if not isinstance(found, int):
        raise ValueError(f"format is {found!r}")
    if found > FORMAT:
        raise NewerFormat(place=place, found=found, known=FORMAT)


def header_of(data: Mapping[str, Any], place: str) -> Header:
    """The header of a set's file. Raises `NewerFormat`, and `UNREADABLE`."""
    check_format(data["format"], place)
    return Header(
        str(data["archive_id"]),
        str(data["set_id"]),
        datetime.fromisoformat(data["taken_at"]),
        str(data["key_id"]),
        None if data["keys"] is None else str(data["keys"]),
        None if data["expires_at"] is None else datetime.fromisoformat(data["expires_at"]),
    )


def body_of(manifest: Manifest) -> dict[str, Any]:
    """What a manifest says besides its header, JSON-able."""
    return {
        "created_at": manifest.created_at.isoformat(),
        "revision": manifest.revision,
        "program": manifest.program,
        "tables": {name: _cut_as_json(cut) for name, cut in manifest.tables.items()},
        "blobs": _cut_as_json(manifest.blobs),
        "blob_bytes": manifest.blob_bytes,
        "last_ids": dict(manifest.last_ids),
        "deleted": list(manifest.deleted),
        "problems": [[problem.audio_id, problem.key, problem.reason] for problem in manifest.problems],
        "audit": manifest.audit,
    }


def manifest_of(header: Header, body: Mapping[str, Any]) -> Manifest:
    """The manifest of this header and body. Raises `UNREADABLE`."""
    return Manifest(
        header=header,
        created_at=datetime.fromisoformat(body["created_at"]),
        revision=str(body["revision"]),
        program=str(body["program"]),
        tables={name: _cut_of(value) for name, value in body["tables"].items()},
        blobs=_cut_of(body["blobs"]),
        blob_bytes=int(body["blob_bytes"]),
        last_ids={name: int(value) for name, value in body["last_ids"].items()},
        deleted=tuple(body["deleted"]),
        problems=tuple(Problem(*problem) for problem in body["problems"]),
        audit=body["audit"],
    )


def canonical(data: Any) -> bytes:
    """The one way in which JSON is written where its hash counts."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def ids_hash(ids: Any) -> str:
    """The hash of ascending ids, 64 bits each, little-endian; `ids` is an array of them."""
    return hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()


def _cut_as_json(cut: Cut) -> dict[str, Any]:
    parts = [[part.start, part.rows, part.ids, part.pack, part.size, part.text_size] for part in cut.parts]
    return {"window": cut.window, "parts": parts}


def _cut_of(data: Mapping[str, Any]) -> Cut:
    return Cut(int(data["window"]), tuple(_part_of(*part) for part in data["parts"]))


def _part_of(start: Any, rows: Any, ids: Any, pack: Any, size: Any, text_size: Any = None) -> Part:
    return Part(
        int(start), int(rows), str(ids), _digest(pack), int(size), None if text_size is None else int(text_size)
    )


def _digest(name: Any) -> str:
    if not isinstance(name, str) or not DIGEST.fullmatch(name):
        raise ValueError(f"{name!r} is no hash")
    return name
