"""Where backups are kept: objects in a folder or bucket, by the verbs of a blob store."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from audio_storage_system.backup.envelope import MAX_BYTES, Envelope, Rotten, stored_at_most
from audio_storage_system.backup.format import (
    FORMAT,
    MARKER,
    SET_ID,
    SETS,
    UNREADABLE,
    VERIFIED,
    Header,
    Manifest,
    Part,
    body_of,
    canonical,
    check_format,
    header_of,
    manifest_of,
    pack_key,
    set_key,
)
from audio_storage_system.blobs import BlobStore, open_blob_store
from audio_storage_system.clock import utc_now
from audio_storage_system.errors import ArchiveMismatch, BackupDamaged, InvalidInput, KeyMissing, KeyRefused, NotFound
from audio_storage_system.locations import is_url, redacted

MAX_MARKER = 1 << 20


class BackupPlace:
    """A destination of backups, which belongs to one archive. `shown`: its name, without secrets."""

    def __init__(self, store: BlobStore) -> None:
        self.store = store
        local = store.url.startswith("file://")
        self.shown = unquote(store.url.removeprefix("file://")) if local else redacted(store.url)

    @classmethod
    def open(cls, destination: str) -> BackupPlace:
        """The place at this folder or address, whatever is there."""
        if not destination:
            raise InvalidInput(reason="Say where the backup is: a folder, or an address such as s3://bucket/prefix")
        return cls(open_blob_store(destination if is_url(destination) else str(destination)))

    def close(self) -> None:
        """Let go of it."""
        self.store.close()

    # Objects

    def get(self, key: str, limit: int = MAX_BYTES) -> bytes:
        """The bytes under a key. Raises `NotFound`, `BackupDamaged`."""
        with self.store.open(key) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise self.damaged(key, f"it is larger than {limit:,} bytes")
        return data

    def put(self, key: str, data: bytes) -> None:
        """Have these bytes under a key, in one step."""
        self.store.replace(self.store.stage(io.BytesIO(data)), key)

    def damaged(self, key: str, reason: str) -> BackupDamaged:
        """The error that names what is rotten."""
        return BackupDamaged(place=self.shown, reason=f"{key}: {reason}")

    # What it belongs to

    def owner(self) -> str | None:
        """Which archive its backups are of; `None` where there is no backup. Raises `NewerFormat`, `BackupDamaged`."""
        try:
            data = json.loads(self.get(MARKER, MAX_MARKER))
            check_format(data["format"], self.shown)
            return str(data["archive_id"])
        except NotFound:
            return None
        except UNREADABLE as error:
            raise self.damaged(MARKER, f"it cannot be read ({error})") from error

    def check(self, archive_id: str) -> None:
        """Raise `ArchiveMismatch` where it is another archive's, or something else lies there."""
        owner = self.owner()
        if owner is not None and owner != archive_id:
            reason = f"it holds backups of archive {owner}, and this is {archive_id}: give each a place of its own"
            raise ArchiveMismatch(place=self.shown, reason=reason)
        if owner is None and (other := next(filter(_is_foreign, self.store.keys()), None)) is not None:
            raise ArchiveMismatch(place=self.shown, reason=f"it holds {other}; backups want a place of their own")

    def claim(self, archive_id: str) -> None:
        """Have it belong to this archive from now on. Raises `ArchiveMismatch`."""
        self.check(archive_id)
        if self.owner() is None:
            data = {"format": FORMAT, "archive_id": archive_id, "created_at": utc_now().isoformat()}
            self.put(MARKER, json.dumps(data, indent=2).encode())

    # Sets

    def set_ids(self) -> list[str]:
        """The sets that are there, oldest first."""
        names = (key.removeprefix(f"{SETS}/").removesuffix(".json") for key in self.store.keys(SETS))
        return sorted(name for name in names if SET_ID.fullmatch(name))

    def choose(self, set_id: str | None = None, at: datetime | None = None) -> str:
        """The set with this id or a unique beginning of it, else the last one that was taken until `at`, else the last
        one. Raises `NotFound`."""
        ids = self.set_ids()
        if set_id is not None:
            ids = [id_ for id_ in ids if id_.startswith(set_id) or id_.endswith(f"-{set_id}")]
            if len(ids) > 1 and set_id not in ids:
                raise InvalidInput(reason=f"{set_id} is the beginning of {len(ids)} sets: {', '.join(ids[:3])} …")
            ids = [set_id] if set_id in ids else ids
        elif at is not None:
            ids = [id_ for id_ in ids if self.header(id_).taken_at <= at]
        if not ids:
            wanted = set_id or (f"taken until {at.isoformat()}" if at else "any")
            raise NotFound(f"There is no backup set at {self.shown} ({wanted}); see: audio-storage backup list")
        return ids[-1]

    def header(self, set_id: str) -> Header:
        """What anyone may read of a set. Raises `NewerFormat`, `BackupDamaged`, `NotFound`."""
        return self._document(set_id)[0]

    def manifest(self, set_id: str, envelope: Envelope) -> Manifest:
        """All of it. Raises `KeyMissing`, `KeyRefused`, `NewerFormat`, `BackupDamaged`, `NotFound`."""
        header, data = self._document(set_id)
        if header.key_id != envelope.key_id:
            self._refuse_key(header, envelope)
        try:
            sealed = bytes.fromhex(data["body"]) if header.key_id else canonical(data["body"])
            body = json.loads(envelope.unseal(canonical(data["header"]).decode(), sealed))
            return manifest_of(header, body)
        except Rotten as error:
            raise self.damaged(set_key(set_id), str(error)) from error
        except UNREADABLE as error:
            raise self.damaged(set_key(set_id), f"it cannot be read ({error})") from error

    def write_manifest(self, manifest: Manifest, envelope: Envelope) -> None:
        """Have the set exist, in one step."""
        head, body = manifest.header.as_json(), body_of(manifest)
        if envelope.key_id:
            body = envelope.seal(canonical(head).decode(), canonical(body)).hex()  # type: ignore[assignment]
        self.put(set_key(manifest.header.set_id), json.dumps(_signed(head, body), ensure_ascii=False).encode())

    def _document(self, set_id: str) -> tuple[Header, dict[str, Any]]:
        key = set_key(set_id)
        try:
            data = json.loads(self.get(key))
            check_format(data["header"]["format"], self.shown)
            if data["sha256"] != _signed(data["header"], data["body"])["sha256"]:
                raise self.damaged(key, "it does not have the hash that was written into it")
            header = header_of(data["header"], self.shown)
            if header.set_id != set_id:
                raise self.damaged(key, f"it is set {header.set_id}, under the name of another")
            return header, data
        except UNREADABLE as error:
            raise self.damaged(key, f"it cannot be read ({error})") from error

    def _refuse_key(self, header: Header, envelope: Envelope) -> None:
        if not envelope.key_id:
            raise KeyMissing(place=self.shown, reason=f"its set {header.set_id} is sealed; give the archive's key")
        if not header.key_id:
            return
        raise KeyRefused(place=self.shown, reason=f"its set {header.set_id} was sealed with another key")

    # Proofs

    def note_verified(self, set_id: str, how: str) -> datetime:
        """Note that a set was read back and found whole; when."""
        now = utc_now()
        self.put(f"{VERIFIED}/{set_id}.json", json.dumps({"verified_at": now.isoformat(), "how": how}).encode())
        return now

    def forget_verified(self, set_id: str) -> None:
        """Note that a set is not whole."""
        self.store.delete(f"{VERIFIED}/{set_id}.json")

    def verified(self, set_ids: Iterator[str] | list[str]) -> dict[str, datetime]:
        """When each of these sets was found whole last; those that never were are left out."""
        found: dict[str, datetime] = {}
        for set_id in set_ids:
            try:
                data = json.loads(self.get(f"{VERIFIED}/{set_id}.json", MAX_MARKER))
                found[set_id] = datetime.fromisoformat(data["verified_at"])
            except (NotFound, *UNREADABLE):  # what cannot be read proves nothing
                continue
        return found

    # Packs

    def pack(self, part: Part, envelope: Envelope) -> bytes:
        """The content of a part's pack, no more of which is read and unpacked than the part says. Raises `Rotten`."""
        most = MAX_BYTES if part.text_size is None else min(part.text_size, MAX_BYTES)
        try:
            return envelope.unwrap(part.pack, self.get(pack_key(part.pack), stored_at_most(most)), most)
        except NotFound as error:
            raise Rotten("it is missing") from error
        except BackupDamaged as error:
            raise Rotten("it is larger than it was") from error


def _is_foreign(key: str) -> bool:
    return not key.startswith("in_use")


def _signed(head: Any, body: Any) -> dict[str, Any]:
    return {"header": head, "sha256": hashlib.sha256(canonical([head, body])).hexdigest(), "body": body}
