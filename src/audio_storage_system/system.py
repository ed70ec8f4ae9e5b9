"""The archive as one object: it opens and composes the parts, and every method hands on to one of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from audio_storage_system import pipeline
from audio_storage_system.archive import (
    Archive,
    archive_exists,
    captures,
    exports,
    open_archive,
    processing,
    removal,
    reports,
    retrieval,
    sidecars,
)
from audio_storage_system.audio import Waveform, load_audio
from audio_storage_system.catalogue import locks, metadata, recordings, transcripts
from audio_storage_system.clock import Deadline
from audio_storage_system.database.tables import transcripts as transcript_table
from audio_storage_system.deletion import Receipt
from audio_storage_system.errors import InvalidInput, NotFound
from audio_storage_system.model_pool import LoadedModel
from audio_storage_system.pipeline import OnDuplicate
from audio_storage_system.records import Added, Metadata, Recording, Segment, Transcript
from audio_storage_system.search import ContextPack, Filter, Query, SearchResults
from audio_storage_system.search.context import CountTokens, estimate_tokens
from audio_storage_system.search.query import Mode
from audio_storage_system.settings import locate
from audio_storage_system.vectors import IndexState

__all__ = ["Added", "AudioStorageSystem", "load_audio"]

Place = str | os.PathLike[str]
Progress = Callable[[float, float], None]


class AudioStorageSystem:
    """An archive of audio with its transcripts, embeddings and metadata.

    archive: its folder, the address of its PostgreSQL database, or its `audio-storage.toml`; default
    `$AUDIO_STORAGE_DATABASE_URL`, else the folder `$AUDIO_STORAGE_HOME`, else `./audio_storage`. It is made when it
    does not exist, unless `create` is false. storage_backend: `sqlite` or `postgres`, to insist on one. blobs: where
    the bytes are kept if not in the folder, as `s3://bucket/prefix`. vectors: the vector database that searches ask if
    not the catalogue's own index, as `qdrant+http://host:6333`. Further
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
        **settings: Any,
    ) -> None:
        home, named = locate(archive, storage_backend)
        places = {name: url for name, url in (("blobs_url", blobs), ("vectors_url", vectors)) if url}
        self._archive: Archive = open_archive(home, create=create, **{**named, **settings, **places})
        self.recovered: list[captures.Recovered] = captures.recover(self._archive)

    @staticmethod
    def exists(archive: Place | None = None) -> bool:
        """Whether there is an archive at this place (default as above)."""
        return archive_exists(*locate(archive))

    # Putting in

    def add(
        self,
        path: Place,
        *,
        metadata: Metadata | None = None,
        whisper_model: str | None = None,
        language: str | None = None,
        generate_embeddings: bool = True,
        recorded_at: datetime | None = None,
        on_duplicate: OnDuplicate = "keep",
        progress: Progress | None = None,
    ) -> Added:
        """Store, transcribe and embed a file: every step that has not been done for it yet.

        Raises `TranscriptionFailed` when the sound was stored but could not be transcribed; adding the file again tries
        that again. `progress` is called with the seconds of sound transcribed so far, and all there are.
        """
        task = processing.task_of(self._archive, whisper_model, language, progress)
        stored = processing.store(self._archive, Path(path), metadata, recorded_at, on_duplicate)
        return processing.process(self._archive, stored, task, embedded=generate_embeddings)

    def store_audio_file(
        self,
        path: Place,
        audio_data: Waveform | None = None,
        *,
        metadata: Metadata | None = None,
        recorded_at: datetime | None = None,
        on_duplicate: OnDuplicate = "keep",
    ) -> Added:
        """Store a file's bytes unchanged; its id. `audio_data` is not needed: the file itself is what is kept."""
        stored = processing.store(self._archive, Path(path), metadata, recorded_at, on_duplicate)
        # Of new bytes, nothing is known yet.
        said = processing.said_in(self._archive, stored.audio_id) if stored.duplicate else None
        return Added.of(stored.audio_id, duplicate=stored.duplicate, said=said)

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

    def generate_transcript(
        self,
        audio_id: int,
        audio_data: Waveform | None = None,
        *,
        whisper_model: str | None = None,
        language: str | None = None,
        prompt: str | None = None,
        activate: bool | None = None,
        allow_fallback: bool = True,
        progress: Progress | None = None,
    ) -> int:
        """Make a new version of what is said, or finish one that was interrupted; its id. Earlier versions stay.

        activate: whether search follows it (default: unless it is a stand-in's and the present one is not).
        allow_fallback: whether another engine may stand in when the weights of this one are not to be had.

        Raises `TranscriptionFailed`, `UnknownSpec`, `NotFound`.
        """
        further: dict[str, Any] = {"prompt": prompt, "activate": activate, "allow_fallback": allow_fallback}
        task = processing.task_of(self._archive, whisper_model, language, progress, **further)
        return processing.transcribe(self._archive, int(audio_id), task, audio_data)

    def generate_embeddings(
        self, audio_id: int, transcript_id: int | None = None, audio_data: Waveform | None = None
    ) -> int:
        """Make every embedding that is missing, of all three kinds, for a version (default: the one that search
        follows); how many were made."""
        if transcript_id is None:
            transcript_id = processing.said_or_raise(self._archive, int(audio_id)).id
        elif self.get_transcript(transcript_id).audio_id != int(audio_id):
            raise NotFound(kind=f"transcript of recording {int(audio_id)}", id=transcript_id)
        source = processing.source_of(self._archive, int(audio_id), audio_data)
        return processing.embed(self._archive, int(audio_id), transcript_id, source)

    # Finding

    def search_similar_audio(
        self,
        text: str | None = None,
        limit: int = 10,
        *,
        audio: Waveform | Place | None = None,
        by: retrieval.By = "transcript",
        mode: Mode = "hybrid",
        where: Mapping[str, Any] | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        language: str | None = None,
        speaker: str | None = None,
        context: int = 0,
        offset: int = 0,
        space: str | None = None,
        deadline: float | None = None,
        whisper_model: str | None = None,
    ) -> SearchResults:
        """Find passages by what `text` says (`mode`: hybrid, semantic or keyword), or by an example `audio` (`by`:
        transcript, audio or combined).

        where, since, until, language, speaker: see `Filter`; hits are the same as if the rest did not exist. context:
        neighbouring segments with each hit. space: the model of another space than the active one. deadline: seconds
        after which the search stops with `DeadlineExceeded`. whisper_model: what understands the example.

        Raises `NotFound` for an unknown space, and `Unavailable` where the embedder is missing; hybrid and keyword then
        search by words.
        """
        if by not in retrieval.BYS:
            raise InvalidInput(reason=f'There is no search by "{by}"; there are: {", ".join(retrieval.BYS)}')
        wanted = Filter(where or {}, since, until, language, speaker)
        query = Query(text or "", None, None, mode, wanted, limit, offset, context)
        until_then = Deadline.after(deadline)
        if audio is None:
            if text is None or by != "transcript":
                raise InvalidInput(reason="Give a text to search for, or audio= to search by an example")
            return retrieval.search_text(self._archive, query, until_then, space)
        example = pipeline.as_waveform(audio) if isinstance(audio, np.ndarray) else Path(audio)
        task = processing.task_of(self._archive, whisper_model, language)
        return retrieval.search_example(self._archive, example, by, query, until_then, task, space)

    def context_pack(
        self,
        text: str,
        max_tokens: int = 2000,
        *,
        where: Mapping[str, Any] | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        language: str | None = None,
        speaker: str | None = None,
        count_tokens: CountTokens = estimate_tokens,
        deadline: float | None = None,
    ) -> ContextPack:
        """The best passages for a question as text for a language model, each with a numbered citation, within a
        budget of tokens as `count_tokens` counts them."""
        query = Query(text, filter=Filter(where or {}, since, until, language, speaker))
        return retrieval.context_pack(self._archive, query, Deadline.after(deadline), max_tokens, count_tokens)

    def list_recordings(
        self,
        *,
        where: Mapping[str, Any] | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        language: str | None = None,
        speaker: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Recording]:
        """Recordings that meet the filter, the latest recorded first."""
        conditions = Filter(where or {}, since, until, language, speaker).on_listing()
        with self._archive.database.read() as connection:
            return recordings.select_where(connection, *conditions, limit=limit, offset=offset)

    def get_recording(self, audio_id: int) -> Recording:
        """One recording. Raises `NotFound`."""
        with self._archive.database.read() as connection:
            return recordings.get(connection, int(audio_id))

    def get_user_audio(self, user_id: str, audio_id: int) -> Recording:
        """The recording, when its metadata `user_id` is this user. Raises `NotFound` otherwise."""
        if not isinstance(user_id, str | int | float):  # a list or an operator would let others pass
            raise InvalidInput(reason="user_id is text or a number")
        mine = Filter({"user_id": {"eq": user_id}, "audio_id": int(audio_id)}).on_recordings()
        with self._archive.database.read() as connection:
            found = recordings.select_where(connection, *mine)
        if not found:
            raise NotFound(kind="recording", id=audio_id)
        return found[0]

    def open_audio(self, audio_id: int) -> BinaryIO:
        """The recording's bytes, exactly as they were given, as a seekable stream."""
        return self._archive.blobs.open(self.get_recording(audio_id).file_path)

    def audio_url(self, audio_id: int, expires: float = 3600) -> str:
        """A URL to read the recording from: below `cdn_url` where that is set, else signed, for anyone who has it and
        `expires` seconds (at most seven days). Raises `Unavailable` where the recordings are in a folder."""
        return retrieval.audio_url(self._archive, self.get_recording(audio_id).file_path, timedelta(seconds=expires))

    # Versions

    def transcripts(self, audio_id: int) -> list[Transcript]:
        """Every version of what is said in a recording, the oldest first."""
        with self._archive.database.read() as connection:
            recordings.get(connection, int(audio_id))
            return transcripts.select_where(connection, transcript_table.c.audio_file_id == int(audio_id))

    def activate_transcript(self, transcript_id: int) -> None:
        """Have search follow this version from now on; nothing is lost, and it can be undone the same way."""
        audio_id = self.get_transcript(transcript_id).audio_id
        with self._archive.database.write(locks.of_recording(audio_id)) as connection:
            transcripts.activate(connection, transcript_id)
        self.generate_embeddings(audio_id, transcript_id)

    def get_transcript(self, transcript_id: int) -> Transcript:
        """One version. Raises `NotFound`."""
        with self._archive.database.read() as connection:
            return transcripts.get(connection, transcript_id)

    def segments(self, transcript_id: int) -> list[Segment]:
        """The timed pieces of a version, with their words."""
        with self._archive.database.read() as connection:
            transcripts.get(connection, transcript_id)
            return transcripts.segments_of(connection, transcript_id)

    def export(self, audio_id: int, format: str = "srt", transcript_id: int | None = None) -> str:
        """A version as `srt`, `vtt`, `txt`, `tsv` or `json`."""
        return exports.export(self._archive, int(audio_id), format, transcript_id)

    # Changing and removing

    def set_metadata(self, audio_id: int, values: Metadata) -> None:
        """Set these keys, leaving the others."""
        with self._archive.database.write(locks.of_recording(int(audio_id))) as connection:
            recordings.get(connection, int(audio_id))
            metadata.put(connection, int(audio_id), values)
            recordings.touch(connection, int(audio_id))
        self._refresh(audio_id)

    def remove_metadata(self, audio_id: int, *keys: str) -> None:
        """Take these keys away."""
        with self._archive.database.write(locks.of_recording(int(audio_id))) as connection:
            recordings.get(connection, int(audio_id))
            metadata.remove(connection, int(audio_id), keys)
            recordings.touch(connection, int(audio_id))
        self._refresh(audio_id)

    def delete(self, audio_id: int) -> Receipt:
        """Remove a recording and everything made from it, for good; what was removed."""
        return removal.remove(self._archive, [audio_id])[0]

    def cleanup_old_files(self, days_old: float = 30) -> list[Receipt]:
        """Delete every recording that was stored more than `days_old` days ago; what was removed."""
        return removal.remove_older(self._archive, days_old)

    # Embedding functions

    @property
    def generate_text_embedding(self) -> Callable[[str], npt.NDArray[np.float32]]:
        """Text to a unit vector, with the embedder in use. Assign a function to use that one instead."""
        return lambda text: self._archive.spaces.text()[1].embed(text)

    @generate_text_embedding.setter
    def generate_text_embedding(self, function: Callable[[str], npt.ArrayLike]) -> None:
        self.use_embedder(function)

    @property
    def generate_audio_embedding(self) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
        """Sound (float32 mono at 16 kHz, or a `Waveform` of any rate) to a unit vector. Assignable."""
        return lambda audio: self._archive.spaces.audio()[1].embed(pipeline.as_model_input(audio))

    @generate_audio_embedding.setter
    def generate_audio_embedding(self, function: Callable[[Any], npt.ArrayLike]) -> None:
        self._archive.spaces.use_audio(function)

    @property
    def generate_combined_embedding(self) -> Callable[[str, npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
        """Words and sound to one unit vector. Assignable."""

        def combined(transcript: str, audio: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            embedder = self._archive.spaces.combined()[1]
            row: npt.NDArray[np.float32] = embedder.embed_batch([transcript], [pipeline.as_model_input(audio)])[0]
            return row

        return combined

    @generate_combined_embedding.setter
    def generate_combined_embedding(self, function: Callable[[str, Any], npt.ArrayLike]) -> None:
        self._archive.spaces.use_combined(function)

    def use_embedder(self, function: Callable[[str], npt.ArrayLike], name: str | None = None) -> None:
        """Embed text with this function from now on, in a space called `user:<name>` (default: after the function)."""
        self._archive.spaces.use_text(function, name)

    # The archive itself

    def stats(self) -> dict[str, Any]:
        """How much there is of everything."""
        return reports.stats(self._archive)

    def models(self) -> list[LoadedModel]:
        """The models that this object has in memory now: how many use each, since when it is idle, about what it
        takes. What could be used is told by `audio_storage_system.known_models()`."""
        return self._archive.loaded_models()

    def reindex(self) -> dict[str, IndexState]:
        """Make everything derived anew: full text, and the vector index of each space."""
        return reports.reindex(self._archive)

    @property
    def home(self) -> Path:
        """The archive's folder."""
        return self._archive.home

    def close(self) -> None:
        """Bring the index up to date, then free models and connections."""
        self._archive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refresh(self, audio_id: int) -> None:
        sidecars.refresh(self._archive, int(audio_id))
