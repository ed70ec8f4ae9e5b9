"""Reading: search, listings, versions, exports."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from audio_storage_system import pipeline
from audio_storage_system.access import Access
from audio_storage_system.archive import Archive, drawing, exports, processing, reports, retrieval
from audio_storage_system.audio import Waveform
from audio_storage_system.catalogue import principals, recordings, transcripts, trash
from audio_storage_system.clock import Cancellation, Deadline
from audio_storage_system.database.tables import transcripts as transcript_table
from audio_storage_system.errors import InvalidInput, NotFound
from audio_storage_system.pipeline import Comparison
from audio_storage_system.records import Peaks, Recording, Segment, Transcript
from audio_storage_system.search import ContextPack, Filter, Query, SearchResults
from audio_storage_system.search.context import CountTokens, estimate_tokens
from audio_storage_system.search.query import Mode

Place = str | os.PathLike[str]


def _example(audio: Waveform | Place | BinaryIO) -> Waveform | Path | BinaryIO:
    if isinstance(audio, np.ndarray):
        return pipeline.as_waveform(audio)
    return Path(audio) if isinstance(audio, str | os.PathLike) else audio


class Reading:
    """What can be read of an archive."""

    _archive: Archive

    def _seen(self, where: Mapping[str, Any] | None, *limits: Any) -> Filter:
        """The filter of a call, to what who asks may see."""
        return replace(Filter(where or {}, *limits), access=self._archive.access.limit)

    # Finding

    def search_similar_audio(
        self,
        text: str | None = None,
        limit: int = 10,
        *,
        audio: Waveform | Place | BinaryIO | None = None,
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
        cancellation: Cancellation | None = None,
        whisper_model: str | None = None,
    ) -> SearchResults:
        """Find passages by what `text` says (`mode`: hybrid, semantic or keyword), or by an example `audio` (`by`:
        transcript, audio or combined): a `Waveform`, a file, or a seekable stream of its bytes, of at most ten minutes.

        where, since, until, language, speaker: see `Filter`; hits are the same as if the rest did not exist. context:
        neighbouring segments with each hit. space: the model of another space than the active one. deadline: seconds
        after which the search stops with `DeadlineExceeded`. cancellation: stops it with `Cancelled` when another
        thread says so. whisper_model: what understands the example.

        Raises `NotFound` for an unknown space, and `Unavailable` where the embedder is missing; hybrid and keyword then
        search by words.
        """
        if by not in retrieval.BYS:
            raise InvalidInput(reason=f'There is no search by "{by}"; there are: {", ".join(retrieval.BYS)}')
        wanted = self._seen(where, since, until, language, speaker)
        query = Query(text or "", None, None, mode, wanted, limit, offset, context)
        until_then = Deadline.after(deadline, cancellation)
        if audio is None:
            if text is None or by != "transcript":
                raise InvalidInput(reason="Give a text to search for, or audio= to search by an example")
            return self._searched(retrieval.search_text(self._archive, query, until_then, space), query)
        task = processing.task_of(self._archive, whisper_model, language)
        found = retrieval.search_example(self._archive, _example(audio), by, query, until_then, task, space)
        return self._searched(found, query, by)

    def _searched(self, found: SearchResults, query: Query, by: str = "text") -> SearchResults:
        """The text of a query may be as private as what it finds: the audit log is told of everything but that."""
        self._archive.audit.read(
            "search",
            by=by,
            mode=query.mode,
            characters=len(query.text),
            keys=sorted(query.filter.where),
            found=len(found),
            recordings=sorted({hit.audio_id for hit in found}),
        )
        return found

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
        cancellation: Cancellation | None = None,
    ) -> ContextPack:
        """The best passages for a question as text for a language model, each with a numbered citation, within a
        budget of tokens as `count_tokens` counts them. deadline, cancellation: as of `search_similar_audio`."""
        query = Query(text, filter=self._seen(where, since, until, language, speaker))
        until_then = Deadline.after(deadline, cancellation)
        pack = retrieval.context_pack(self._archive, query, until_then, max_tokens, count_tokens)
        shown = {citation.audio_id for citation in pack.citations}
        self._archive.audit.read(
            "context.packed", characters=len(text), keys=sorted(where or {}), recordings=sorted(shown)
        )
        return pack

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
        after: tuple[datetime, int] | None = None,
    ) -> list[Recording]:
        """Recordings that meet the filter, the latest recorded first. after: only those behind this place of the order,
        the `recorded_at` and `id` of the last one of the page before; pages stay whole while recordings come and go."""
        conditions = self._seen(where, since, until, language, speaker).on_listing()
        with self._archive.database.read() as connection:
            found = recordings.select_where(connection, *conditions, limit=limit, offset=offset, after=after)
        self._archive.audit.read("recordings.listed", found=len(found), keys=sorted(where or {}))
        return found

    def get_recording(self, audio_id: int) -> Recording:
        """One recording. Raises `NotFound`."""
        found = self._recording(audio_id)
        self._archive.audit.read("recording.read", found.id)
        return found

    def _recording(self, audio_id: int) -> Recording:
        with self._archive.database.read() as connection:
            self._archive.access.require(connection, int(audio_id))
            return recordings.get(connection, int(audio_id))

    def known_hashes(self) -> set[str]:
        """The SHA-256 of every file that is stored here, or was and has been deleted. A view knows those of what its
        principal has stored."""
        return reports.known_hashes(self._archive)

    def get_user_audio(self, user_id: str, audio_id: int) -> Recording:
        """The recording, when this user may see it: as its owner, which the `user_id` given when it was stored is, or
        by a grant. Raises `NotFound` otherwise, also where who asks may not see it."""
        if isinstance(user_id, bool) or not isinstance(user_id, str | int | float):
            raise InvalidInput(reason="user_id is text or a number")
        with self._archive.database.read() as connection:
            self._archive.access.require(connection, int(audio_id))
            user = principals.find(connection, principals.name_of(user_id))
            if user is None or not Access(user.id, user.name, restricted=True).may(connection, int(audio_id)):
                raise NotFound(kind="recording", id=audio_id)
            found = recordings.get(connection, int(audio_id))
        self._archive.audit.read("recording.read", found.id)
        return found

    def open_audio(self, audio_id: int) -> BinaryIO:
        """The recording's bytes, exactly as they were given, as a seekable stream. Raises `AudioRemoved`."""
        file = self._archive.blobs.open(retrieval.audio_key(self._recording(audio_id)))
        self._archive.audit.read("audio.opened", audio_id)
        return file

    def peaks(
        self,
        audio_id: int,
        points: int = 1000,
        *,
        deadline: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Peaks:
        """A recording's sound as a player draws it: the lowest and the highest sample of each of `points` equal parts
        (at most 20,000). All of it is decoded for that; deadline, cancellation: as of `search_similar_audio`. Raises
        `AudioRemoved`."""
        found = self._recording(audio_id)
        drawn = drawing.peaks(self._archive, found, points, Deadline.after(deadline, cancellation))
        self._archive.audit.read("audio.drawn", audio_id)
        return drawn

    def audio_url(self, audio_id: int, expires: float = 3600) -> str:
        """A URL to read the recording from: below `cdn_url` where that is set, else signed, for anyone who has it and
        `expires` seconds (at most seven days). Raises `Unavailable` where the recordings are in a folder."""
        key = retrieval.audio_key(self._recording(audio_id))
        url = retrieval.audio_url(self._archive, key, timedelta(seconds=expires))
        self._archive.audit.read("audio.linked", audio_id, seconds=float(expires))
        return url

    # Versions

    def transcripts(self, audio_id: int, *, after: int = 0, limit: int | None = None) -> list[Transcript]:
        """Every version of what is said in a recording, the oldest first. after: only those with a higher id; limit:
        at most so many."""
        mine = transcript_table.c.audio_file_id == int(audio_id)
        with self._archive.database.read() as connection:
            self._archive.access.require(connection, int(audio_id))
            recordings.get(connection, int(audio_id))
            found = transcripts.select_where(connection, mine, transcript_table.c.id > after, limit=limit)
        self._archive.audit.read("transcript.read", audio_id, versions=len(found))
        return found

    def get_transcript(self, transcript_id: int) -> Transcript:
        """One version. Raises `NotFound`."""
        found = processing.version_of(self._archive, transcript_id)
        self._archive.audit.read("transcript.read", found.audio_id, transcript_id=found.id)
        return found

    def segments(
        self,
        transcript_id: int,
        *,
        start: float | None = None,
        end: float | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> list[Segment]:
        """The timed pieces of a version, with their words, in order. start, end: only those in these seconds, in part
        or as a whole. after: only those that follow the segment with this id. limit: at most so many."""
        with self._archive.database.read() as connection:
            self._archive.access.require_version(connection, transcript_id)
            said = transcripts.get(connection, transcript_id)
            trash.refuse(connection, said.audio_id)
            found = transcripts.segments_between(connection, transcript_id, start, end, after=after, limit=limit)
        self._archive.audit.read("transcript.read", said.audio_id, transcript_id=said.id)
        return found

    def diff_transcripts(self, before: int, after: int) -> Comparison:
        """Where two versions of one recording differ, word by word, with times. Raises `NotFound`, and `InvalidInput`
        for versions of different recordings."""
        return exports.differences(self._archive, before, after)

    def export(self, audio_id: int, format: str = "srt", transcript_id: int | None = None) -> str:
        """A version as `srt`, `vtt`, `txt`, `tsv` or `json`."""
        text = exports.export(self._archive, int(audio_id), format, transcript_id)
        self._archive.audit.read("transcript.exported", audio_id, transcript_id=transcript_id, format=format)
        return text
