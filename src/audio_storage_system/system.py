"""The archive as one object: it opens and composes the parts, and every method hands on to one of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, BinaryIO, Self

from audio_storage_system.access import Access, Role
from audio_storage_system.archive import (
    Archive,
    archive_exists,
    captures,
    examining,
    importing,
    open_archive,
    processing,
    removal,
    reports,
)
from audio_storage_system.archive.notes import Notes
from audio_storage_system.audio import Waveform, load_audio
from audio_storage_system.auditing import AuditBoard
from audio_storage_system.backup import Backups
from audio_storage_system.catalogue import locks, principals, transcripts
from audio_storage_system.catalogue.jobs import ADD, RETRANSCRIBE, TRANSLATE
from audio_storage_system.deletion import Receipt
from audio_storage_system.errors import NotFound
from audio_storage_system.facade import (
    Describing,
    Embedding,
    Living,
    Place,
    Reading,
    Transcribing,
    Upkeep,
)
from audio_storage_system.integrity import Quarantine, Verification, verify
from audio_storage_system.jobs import JobEvent, Jobs, Uploads, Worker, concurrency_of, submission
from audio_storage_system.keys import KeySource
from audio_storage_system.model_pool import LoadedModel
from audio_storage_system.permissions import Grants, Tokens, Users
from audio_storage_system.pipeline import OnDuplicate, Rule
from audio_storage_system.records import Added, Job, Metadata, Priority
from audio_storage_system.retention import Holds, Retention, Trash
from audio_storage_system.rotation import KeyBoard
from audio_storage_system.security import SecurityReport, check_security
from audio_storage_system.settings import Encryption, Settings, locate
from audio_storage_system.vectors import IndexState
from audio_storage_system.webhooks import Webhooks

__all__ = ["Added", "AudioStorageSystem", "load_audio"]

Progress = Callable[[float, float], None]


class AudioStorageSystem(Reading, Describing, Transcribing, Embedding, Living, Upkeep):
    """An archive of audio with its transcripts, embeddings and metadata.

    archive: its folder, the address of its PostgreSQL database, or its `audio-storage.toml`; default
    `$AUDIO_STORAGE_DATABASE_URL`, else the folder `$AUDIO_STORAGE_HOME`, else `./audio_storage`. It is made when it
    does not exist, unless `create` is false. storage_backend: `sqlite` or `postgres`, to insist on one. blobs: where
    the bytes are kept if not in the folder, as `s3://bucket/prefix`. vectors: the vector database that searches ask if
    not the catalogue's own index, as `qdrant+http://host:6333`. encryption: make an encrypted archive, or how to open
    one: `True` (key file, made where there is none), `keyfile:/path`, `keyring`, `passphrase` (of the environment), or
    the key, 32 bytes. accept_plaintext_catalogue: on PostgreSQL and with a vector database, texts and vectors are not
    encrypted; they may stay readable. audit: give the archive keys for its audit log. Further
    keywords are settings (see `Settings`), which win over environment and file.

    Safe to use from several threads and processes at once; a context manager. Every method may raise the errors of
    `audio_storage_system.errors`.
    """

    def __init__(
        self,
        archive: Place | None = None,
        *,
        storage_backend: str | None = None,
        blobs: str | None = None,
        vectors: str | None = None,
        create: bool = True,
        encryption: bool | str | bytes | KeySource | None = None,
        audit: bool = False,
        accept_plaintext_catalogue: bool = False,
        **settings: Any,
    ) -> None:
        home, named = locate(archive, storage_backend)
        protection = Encryption.of(encryption, audit=audit, accept=accept_plaintext_catalogue)
        places = {name: url for name, url in (("blobs_url", blobs), ("vectors_url", vectors)) if url}
        self._archive: Archive = open_archive(
            home, create=create, encryption=protection, **{**named, **settings, **places}
        )
        self._jobs = Jobs(self._archive)
        self._sessions = weakref.WeakSet()
        self.recovered: list[captures.Recovered] = captures.recover(self._archive)

    def as_user(self, name: str) -> Self:
        """A view for somebody: the same methods over what they own or were granted, and nothing else exists for them.
        What they may see but not do raises `Forbidden`; what they store is theirs. It costs next to nothing, and is
        over when this object is closed; closing it does nothing. Raises `NotFound` where nobody has this name.
        """
        self._archive.access.require_admin("act for somebody else")
        with self._archive.database.read() as connection:
            principal = principals.get(connection, name)
        return self._view(Access(principal.id, principal.name, restricted=True, most=self._archive.access.most))

    @property
    def may_write(self) -> bool:
        """Whether who asks may store recordings, and change those that they may change: not with a token that only
        reads."""
        return self._archive.access.may_write

    def _view(self, access: Access) -> Self:
        view = object.__new__(type(self))
        view._archive = self._archive.seen_by(access)
        view._jobs = self._jobs.seen_by(view._archive)
        view._sessions = self._sessions
        view.recovered = []
        return view

    @property
    def keys(self) -> KeyBoard:
        """The keys of an encrypted archive: what they are, new ones, copies to keep elsewhere."""
        return KeyBoard(self._archive)

    @staticmethod
    def exists(archive: Place | None = None) -> bool:
        """Whether there is an archive at this place (default as above)."""
        return archive_exists(*locate(archive))

    # Putting in

    def add(
        self,
        path: Place | BinaryIO,
        *,
        name: str = "",
        metadata: Metadata | None = None,
        whisper_model: str | None = None,
        language: str | None = None,
        generate_embeddings: bool = True,
        recorded_at: datetime | None = None,
        on_duplicate: OnDuplicate = "keep",
        progress: Progress | None = None,
        fernet_key: str | bytes | None = None,
    ) -> Added:
        """Store, transcribe and embed a file: every step that has not been done for it yet. path: the file, or a
        seekable stream of its bytes, which stays open; `name` is what it is called then. fernet_key: the file is
        encrypted with Fernet, and stored decrypted, as everything else is; `KeyRefused` for another key.

        Raises `TranscriptionFailed` when the sound was stored but could not be transcribed; adding the file again tries
        that again. `progress` is called with the seconds of sound transcribed so far, and all there are.
        """
        task = processing.task_of(self._archive, whisper_model, language, progress)
        further: dict[str, Any] = {"name": name, "fernet_key": fernet_key}
        stored = processing.store(self._archive, path, metadata, recorded_at, on_duplicate, **further)
        return processing.process(self._archive, stored, task, embedded=generate_embeddings)

    def store_audio_file(
        self,
        path: Place | BinaryIO,
        audio_data: Waveform | None = None,
        *,
        name: str = "",
        metadata: Metadata | None = None,
        recorded_at: datetime | None = None,
        on_duplicate: OnDuplicate = "keep",
    ) -> Added:
        """Store a file's bytes unchanged; its id. `audio_data` is not needed: the file itself is what is kept. path,
        name: as of `add`."""
        stored = processing.store(self._archive, path, metadata, recorded_at, on_duplicate, name=name)
        # Of new bytes, nothing is known yet.
        said = processing.said_in(self._archive, stored.audio_id) if stored.duplicate else None
        return Added.of(stored.audio_id, duplicate=stored.duplicate, said=said)

    def examine(self, path: Place) -> examining.Examined:
        """What adding a file would do: its bytes are read and looked for, nothing is stored. Raises what storing it
        would raise."""
        return examining.examine(self._archive, Path(path), self._archive.settings.max_file_bytes)

    def record_and_store_audio(
        self,
        duration: float | None = None,
        whisper_model: str | None = None,
        generate_embeddings: bool = True,
        metadata: Metadata | None = None,
        *,
        language: str | None = None,
        device: int | str | None = None,
        on_level: Callable[[float], None] | None = None,
        stop: Event | None = None,
    ) -> Added:
        """Record from the microphone for `duration` seconds (or until `stop` is set, or Ctrl-C), then store, transcribe
        and embed it. What was said is on the disk within a second, whatever happens. Raises `MicrophoneUnavailable`.
        """
        task = processing.task_of(self._archive, whisper_model, language)
        stored = captures.record(
            self._archive, duration=duration, values=metadata or {}, device=device, on_level=on_level, stop=stop
        )
        return processing.process(self._archive, stored, task, embedded=generate_embeddings)

    def import_transcript(
        self,
        audio: Place | int,
        transcript_file: Place | BinaryIO,
        *,
        name: str = "",
        language: str | None = None,
        activate: bool | None = None,
        metadata: Metadata | None = None,
        generate_embeddings: bool = True,
    ) -> importing.Imported:
        """Store a recording (its file, or the id of one stored before) with a transcript that exists already: srt, vtt,
        tsv, or the JSON of whisper, whisperX, whisper.cpp and OpenAI. It becomes a version with the engine `import`;
        the same file again makes nothing new. transcript_file: the file, or a stream of its bytes; `name` is what it is
        called then, which tells its format.

        activate: whether search follows it (default: only where it follows none so far). metadata: for the recording.

        Raises `InvalidInput` naming the line that cannot be read, with nothing stored; what storing raises; `NotFound`.
        """
        wanted = importing.Wanted(language, activate, metadata, generate_embeddings)
        return importing.import_transcript(self._archive, audio, transcript_file, wanted, name)

    def generate_embeddings(
        self, audio_id: int, transcript_id: int | None = None, audio_data: Waveform | None = None
    ) -> int:
        """Make every embedding that is missing, of all three kinds, for a version (default: the one that search
        follows); how many were made."""
        self._archive.require(int(audio_id), Role.EDITOR, "embed")
        if transcript_id is None:
            transcript_id = processing.said_or_raise(self._archive, int(audio_id)).id
        elif processing.version_of(self._archive, transcript_id).audio_id != int(audio_id):
            raise NotFound(kind=f"transcript of recording {int(audio_id)}", id=transcript_id)
        source = processing.source_of(self._archive, int(audio_id), audio_data)
        return processing.embed(self._archive, int(audio_id), transcript_id, source)

    # In the background

    def submit(
        self,
        path: Place | BinaryIO,
        *,
        name: str = "",
        metadata: Metadata | None = None,
        whisper_model: str | None = None,
        language: str | None = None,
        generate_embeddings: bool = True,
        recorded_at: datetime | None = None,
        on_duplicate: OnDuplicate = "keep",
        priority: Priority | str = Priority.NORMAL,
        prompt: str | None = None,
        translate: bool = False,
        delay_seconds: float | None = None,
    ) -> Job:
        """Store a file now, and leave transcribing and embedding it to the workers; the job, which knows the
        recording's id. What has been stored is safe, whatever becomes of the job; see `jobs`. path, name: as of `add`.

        priority: `high`, `normal` or `low`. Who brings many files does not keep others waiting: each `user_id` of the
        metadata has its turn, and each view. prompt: as of `generate_transcript`. translate: have one version made,
        into English, and nothing embedded. delay_seconds: so long the workers leave it to whoever gives it, to be done
        at once and then ended with `jobs.done` or `jobs.failed`.
        """
        asked: dict[str, Any] = {"generate_embeddings": generate_embeddings, "prompt": prompt}
        options = submission.options_of(self._archive, whisper_model, language, **asked)
        further: dict[str, Any] = {"recorded_at": recorded_at, "on_duplicate": on_duplicate, "priority": priority}
        further |= {"delay_seconds": delay_seconds, "kind": TRANSLATE if translate else ADD}
        return submission.submit(self._archive, self._jobs, path, options, name=name, metadata=metadata, **further)

    @property
    def uploads(self) -> Uploads:
        """The board of uploads, files that arrive in parts: create, get, list, append, finish, abort."""
        return Uploads(self._archive, self._jobs)

    def retranscribe(
        self,
        audio_ids: Sequence[int],
        *,
        whisper_model: str | None = None,
        language: str | None = None,
        prompt: str | None = None,
        activate: Rule | bool | None = None,
        priority: Priority | str = Priority.NORMAL,
    ) -> list[Job]:
        """Have workers make new versions of what is said in these recordings; their jobs. As `generate_transcript`, but
        what has a version already is never given the fallback's. Raises `UnknownSpec`, `NotFound`."""
        task = processing.task_of(self._archive, whisper_model, language, activate=activate)
        for audio_id in audio_ids:
            self._archive.require(int(audio_id), Role.EDITOR, "transcribe")
            self._recording(audio_id)
        given = {"whisper_model": task.asked, "language": task.language, "prompt": prompt, "activate": task.activate}
        options = {name: value for name, value in given.items() if value is not None}
        return self._jobs.submit(RETRANSCRIBE, [int(audio_id) for audio_id in audio_ids], options, priority=priority)

    def submit_reembedding(
        self,
        embedder: str | None = None,
        *,
        kind: str = "transcript",
        drop_old: bool = False,
        priority: Priority | str = Priority.NORMAL,
    ) -> Job:
        """Have a worker do what `reembed` does; its job. Raises as `plan_reembedding` does."""
        self.plan_reembedding(embedder, kind=kind)
        return self._jobs.submit_reembedding(embedder, kind, drop_old=drop_old, priority=priority)

    @property
    def users(self) -> Users:
        """The board of principals: add, list, get, remove; join and leave groups."""
        return Users(self._archive)

    @property
    def grants(self) -> Grants:
        """The board of grants: give, list, revoke."""
        return Grants(self._archive)

    @property
    def tokens(self) -> Tokens[Self]:
        """The board of API tokens: create, list, revoke, authenticate."""
        return Tokens(self._archive, self._view)

    @property
    def audit(self) -> AuditBoard:
        """The board of the audit log: list, verify, anchor, export."""
        return AuditBoard(self._archive)

    @property
    def webhooks(self) -> Webhooks:
        """The board of webhooks: add, list, get, remove, enable, disable, test, deliveries, retry."""
        return Webhooks(self._archive)

    @property
    def jobs(self) -> Jobs:
        """The board of background jobs: find, get, cancel, retry, wait."""
        return self._jobs

    def worker(
        self,
        *,
        concurrency: int = 0,
        queues: Sequence[str] = (),
        name: str = "",
        on_event: Callable[[JobEvent], None] = lambda event: None,
    ) -> Worker:
        """A worker for this archive's jobs; its `run(stop)` works until the event `stop` is set.

        concurrency: recordings transcribed at once (0: one per core, or one per graphics card where there is one).
        queues: which to take jobs from, of `transcribe`, `embed`, `remote` (what asks services over the network) and
        `upkeep`; default all. on_event: told what happens, from any thread.
        """
        self._archive.access.require_admin("run workers")
        return Worker(
            self._archive,
            self._jobs,
            concurrency_of(concurrency, queues),
            name=name,
            on_event=on_event,
        )

    # Changing and removing

    def activate_transcript(self, transcript_id: int) -> None:
        """Have search follow this version from now on; nothing is lost, and it can be undone the same way."""
        audio_id = processing.version_of(self._archive, transcript_id, Role.EDITOR, "choose the transcript of").audio_id
        with self._archive.database.write(locks.of_recording(audio_id)) as connection:
            transcripts.activate(connection, transcript_id)
            self._archive.audit.note(connection, "transcript.activated", audio_id, transcript_id=transcript_id)
        self.generate_embeddings(audio_id, transcript_id)

    def delete(self, audio_id: int) -> Receipt:
        """Remove a recording and everything made from it, now and for good; what was removed. `trash` can be undone.
        Raises `NotFound`, `UnderLegalHold`."""
        self._archive.require(int(audio_id), Role.OWNER, "delete")
        return removal.remove(self._archive, int(audio_id))

    def cleanup_old_files(self, days_old: float = 30) -> list[Receipt]:
        """Delete every recording that was stored more than `days_old` days ago and that no legal hold covers; what was
        removed."""
        return self.retention.clean_up(days_old)

    @property
    def trash(self) -> Trash:
        """Recordings that were thrown away: put, list, restore, empty."""
        return Trash(self._archive)

    @property
    def retention(self) -> Retention:
        """What is kept for how long: add, rules, remove, plan, run, report."""
        return Retention(self._archive)

    @property
    def holds(self) -> Holds:
        """Legal holds, which beat every rule and every hand: place, list, release."""
        return Holds(self._archive)

    # The archive itself

    @property
    def backups(self) -> Backups:
        """The board of backups: create, list, verify, rehearse, prune."""
        return Backups(self._archive)

    def stats(self) -> dict[str, Any]:
        """How much there is of everything; in a view, of everything that its principal may see."""
        return reports.stats(self._archive)

    def models(self) -> list[LoadedModel]:
        """The models that this object has in memory now: how many use each, since when it is idle, about what it
        takes. What could be used is told by `audio_storage_system.known_models()`."""
        self._archive.access.require_admin("see which models are in use")
        return self._archive.loaded_models()

    def reindex(self) -> dict[str, IndexState]:
        """Make everything derived anew: full text, and the vector index of each space."""
        return reports.reindex(self._archive)

    def verify(
        self,
        *,
        deep: bool = False,
        repair: bool = False,
        after: int = 0,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Verification:
        """Whether everything is there and fits together; it may be asked while the archive is in use.

        deep: read every file, text and vector too, not only count and compare. repair: make anew what is derived; what
        was recorded and said is never touched. after: of files, only those of recordings with a higher id, to go on
        where an earlier call stopped. progress: called with a stage, and how much of how much of it is done.
        """
        return verify(self._archive, deep=deep, repair=repair, after=after, progress=progress)

    @property
    def quarantine(self) -> Quarantine:
        """Files that no recording has, which `verify(repair=True)` moved aside: list, restore."""
        return Quarantine(self._archive)

    def check_security(self, *, advisory_database: Place | None = None, stale_days: float = 90.0) -> SecurityReport:
        """What an auditor would name: open files, keys beside data, old tokens, no backups … each with the fix. Changes
        nothing and asks no network.

        advisory_database: a folder of known vulnerabilities (OSV), default `advisories` in the user's data folder.
        stale_days: what nobody has used for so long is stale.
        """
        place = None if advisory_database is None else Path(advisory_database)
        return check_security(self._archive, advisory_database=place, stale_days=stale_days)

    def temporary_file(self) -> BinaryIO:
        """A file for what is on its way into the archive: it has no name, is gone when it is closed, and where the
        archive is encrypted nobody else can read it."""
        return self._archive.temporary_file()

    @property
    def settings(self) -> Settings:
        """The settings in force. Among them may be secrets, in addresses of databases: do not show them."""
        return self._archive.settings

    @property
    def principal(self) -> str:
        """The name of whose view this is; `owner` where it is nobody's in particular."""
        return self._archive.access.name

    @property
    def home(self) -> Path:
        """The archive's folder."""
        return self._archive.home

    @property
    def notes(self) -> Notes:
        """Seals what a program notes for itself outside of the archive, such as which files it has brought."""
        self._archive.access.require_admin("seal what is noted of the archive")
        return Notes(self._archive.key_for("notes"))

    def close(self) -> None:
        """End live sessions (those that may be resumed are suspended), bring the index up to date, then free models and
        connections. A view has none of its own."""
        if not self._archive.access.restricted:
            self._leave_sessions()
            self._jobs.close()
            self._archive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
