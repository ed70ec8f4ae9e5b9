"""Reading: search, listings, versions, exports."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from audio_storage_system import pipeline
from audio_storage_system.archive import Archive, exports, processing, reports, retrieval
from audio_storage_system.audio import Waveform
from audio_storage_system.catalogue import recordings, transcripts, trash
from audio_storage_system.clock import Deadline
from audio_storage_system.database.tables import transcripts as transcript_table
from audio_storage_system.errors import InvalidInput, NotFound
from audio_storage_system.pipeline import Comparison
from audio_storage_system.records import Recording, Segment, Transcript
from audio_storage_system.search import ContextPack, Filter, Query, SearchResults
from audio_storage_system.search.context import CountTokens, estimate_tokens
from audio_storage_system.search.query import Mode

Place = str | os.PathLike[str]


class Reading:
    """What can be read of an archive."""

    _archive: Archive

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

    def known_hashes(self) -> set[str]:
        """The SHA-256 of every file that is stored here, or was and has been deleted."""
        return reports.known_hashes(self._archive)

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
        """The recording's bytes, exactly as they were given, as a seekable stream. Raises `AudioRemoved`."""
        return self._archive.blobs.open(retrieval.audio_key(self.get_recording(audio_id)))

    def audio_url(self, audio_id: int, expires: float = 3600) -> str:
        """A URL to read the recording from: below `cdn_url` where that is set, else signed, for anyone who has it and
        `expires` seconds (at most seven days). Raises `Unavailable` where the recordings are in a folder."""
        return retrieval.audio_url(
            self._archive, retrieval.audio_key(self.get_recording(audio_id)), timedelta(seconds=expires)
        )

    # Versions

    def transcripts(self, audio_id: int) -> list[Transcript]:
        """Every version of what is said in a recording, the oldest first."""
        with self._archive.database.read() as connection:
            recordings.get(connection, int(audio_id))
            return transcripts.select_where(connection, transcript_table.c.audio_file_id == int(audio_id))

    def get_transcript(self, transcript_id: int) -> Transcript:
        """One version. Raises `NotFound`."""
        return processing.version_of(self._archive, transcript_id)

    def segments(self, transcript_id: int) -> list[Segment]:
        """The timed pieces of a version, with their words."""
        with self._archive.database.read() as connection:
            trash.refuse(connection, transcripts.get(connection, transcript_id).audio_id)
            return transcripts.segments_of(connection, transcript_id)

    def diff_transcripts(self, before: int, after: int) -> Comparison:
        """Where two versions of one recording differ, word by word, with times. Raises `NotFound`, and `InvalidInput`
        for versions of different recordings."""
        return exports.differences(self._archive, before, after)

    def export(self, audio_id: int, format: str = "srt", transcript_id: int | None = None) -> str:
        """A version as `srt`, `vtt`, `txt`, `tsv` or `json`."""
        return exports.export(self._archive, int(audio_id), format, transcript_id)
