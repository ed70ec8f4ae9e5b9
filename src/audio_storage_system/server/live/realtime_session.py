"""The configuration of a session of OpenAI's realtime API, in its present shape and in that of its beta."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from audio_storage_system.errors import InvalidInput
from audio_storage_system.server.live.g711 import TABLES

PCM, PCM_RATE, TELEPHONE_RATE = "audio/pcm", 24_000, 8_000
BETA_FORMATS = {"pcm16": PCM, "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
BETA_NAMES = {kind: name for name, kind in BETA_FORMATS.items()}
SERVER_VAD = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a client asked for. turn_detection: `None` where the client itself says what belongs together, by commits.
    Of `transcription`, language and model are used."""

    format: str = PCM
    rate: int = PCM_RATE
    transcription: Mapping[str, Any] | None = field(default_factory=lambda: {"model": "whisper-1"})
    turn_detection: Mapping[str, Any] | None = field(default_factory=lambda: SERVER_VAD)

    @property
    def language(self) -> str | None:
        """ISO 639-1, where one was named."""
        return _name(self.transcription, "language")

    @property
    def model(self) -> str | None:
        """For the version that is made afterwards, as the client names it."""
        return _name(self.transcription, "model")

    def updated(self, session: Mapping[str, Any]) -> Configuration:
        """With what a `session.update` or `transcription_session.update` changes. Raises `InvalidInput`."""
        if session.get("type", "transcription") != "transcription":
            raise InvalidInput(reason='Only sessions of the type "transcription" are served')
        changed = _flat(session) if "audio" not in session else _nested(session)
        for name in ("transcription", "turn_detection"):
            if not isinstance(changed.get(name, None), Mapping | None):
                raise InvalidInput(reason=f"{name} is an object or null")
        result = replace(self, **changed)
        for name in ("language", "model"):
            _name(result.transcription, name)
        return result

    def as_present(self, session_id: str) -> dict[str, Any]:
        """As `session.created` and `session.updated` show it."""
        form = {"type": self.format, "rate": self.rate} if self.format == PCM else {"type": self.format}
        heard = {"format": form, "transcription": self.transcription, "turn_detection": self.turn_detection}
        shown = {"id": session_id, "object": "realtime.transcription_session", "type": "transcription"}
        return {**shown, "audio": {"input": {**heard, "noise_reduction": None}}, "include": None}

    def as_beta(self, session_id: str) -> dict[str, Any]:
        """As `transcription_session.created` and `transcription_session.updated` show it."""
        return {
            "id": session_id,
            "object": "realtime.transcription_session",
            "input_audio_format": BETA_NAMES[self.format],
            "input_audio_transcription": self.transcription,
            "turn_detection": self.turn_detection,
            "modalities": ["text"],
        }


def _flat(session: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    if (name := session.get("input_audio_format")) is not None:
        if not isinstance(name, str) or name not in BETA_FORMATS:
            raise InvalidInput(reason=f"input_audio_format is one of: {', '.join(BETA_FORMATS)}")
        changed |= _form({"type": BETA_FORMATS[name]})
    if "input_audio_transcription" in session:
        changed["transcription"] = session["input_audio_transcription"]
    if "turn_detection" in session:
        changed["turn_detection"] = session["turn_detection"]
    return changed


def _nested(session: Mapping[str, Any]) -> dict[str, Any]:
    audio = session["audio"]
    heard = audio.get("input") or {} if isinstance(audio, Mapping) else None
    if not isinstance(heard, Mapping):
        raise InvalidInput(reason="audio and audio.input are objects")
    changed = {name: heard[name] for name in ("transcription", "turn_detection") if name in heard}
    return changed | (_form(heard["format"]) if heard.get("format") is not None else {})


def _form(given: Any) -> dict[str, Any]:
    kind = given.get("type", PCM) if isinstance(given, Mapping) else None
    if not isinstance(kind, str) or kind not in (PCM, *TABLES):
        raise InvalidInput(reason=f"the type of an audio format is one of: {', '.join((PCM, *TABLES))}")
    rate = given.get("rate") or PCM_RATE if kind == PCM else TELEPHONE_RATE
    if not isinstance(rate, int):
        raise InvalidInput(reason="the rate of an audio format is a number of Hz")
    return {"format": kind, "rate": rate}


def _name(values: Mapping[str, Any] | None, name: str) -> str | None:
    value = (values or {}).get(name)
    if value is not None and (not isinstance(value, str) or len(value) > LONGEST_NAME):
        raise InvalidInput(reason=f"{name} is text of at most {LONGEST_NAME} characters")
    return value or None
