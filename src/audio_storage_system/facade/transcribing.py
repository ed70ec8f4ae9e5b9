"""Transcribing now, in this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, BinaryIO

from audio_storage_system.access import Role
from audio_storage_system.archive import Archive, processing
from audio_storage_system.audio import Waveform
from audio_storage_system.pipeline import Heard, Listener, Made, Rule

Progress = Callable[[float, float], None]


class Transcribing:
    """From sound to what is said in it."""

    _archive: Archive

    def generate_transcript(
        self,
        audio_id: int,
        audio_data: Waveform | None = None,
        *,
        whisper_model: str | None = None,
        language: str | None = None,
        prompt: str | None = None,
        translate: bool = False,
        activate: Rule | bool | None = None,
        allow_fallback: bool = True,
        reuse: bool = False,
        progress: Progress | None = None,
        on_segments: Listener | None = None,
    ) -> Made:
        """Make a new version of what is said, or finish one that was interrupted; its id. Earlier versions stay.

        translate: into English, with an engine that can; search follows such a version only where `activate` says so.
        activate: whether search follows it: `always` (`True`), `never` (`False`), or `if-better`, which keeps the
        present one where only a person can tell (default: always, but a stand-in never replaces another engine's). What
        was decided and why is the result's `decision`.
        allow_fallback: whether another engine may stand in when the weights of this one are not to be had.
        reuse: give the version that the same engine made with the same parameters before, where there is one.
        on_segments: called with the segments of the version, each once and in order, as soon as they are kept. What it
        raises stops the work, which can be taken up again.

        Raises `TranscriptionFailed`, `UnknownSpec`, `Unsupported`, `NotFound`.
        """
        further: dict[str, Any] = {"prompt": prompt, "allow_fallback": allow_fallback, "listener": on_segments}
        further |= {
            "translate": translate,
            "reuse": reuse,
            "activate": "never" if translate and activate is None else activate,
        }
        task = processing.task_of(self._archive, whisper_model, language, progress, **further)
        self._archive.require(int(audio_id), Role.EDITOR, "transcribe")
        return processing.transcribe(self._archive, int(audio_id), task, audio_data)

    def transcribe(
        self,
        path: str | os.PathLike[str] | BinaryIO,
        *,
        name: str = "",
        whisper_model: str | None = None,
        language: str | None = None,
        prompt: str | None = None,
        translate: bool = False,
        progress: Progress | None = None,
        on_segments: Listener | None = None,
    ) -> Heard:
        """What is said in a file, of which nothing is stored. path, name: as of `add`; the rest as of
        `generate_transcript`. `progress` is called with the seconds of sound read so far; how many there are nobody
        knows yet, so it gets them as the total as well.

        Raises `NotAudio`, `TooLarge`, `UnknownSpec`, `EngineUnavailable`, `Unsupported`, and what the engine raises.
        """
        further: dict[str, Any] = {"prompt": prompt, "translate": translate, "listener": on_segments}
        task = processing.task_of(self._archive, whisper_model, language, progress, **further)
        return processing.listen(self._archive, path, name, task)
