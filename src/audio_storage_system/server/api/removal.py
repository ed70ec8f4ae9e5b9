"""What deletions answer."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from audio_storage_system.server.api.shapes import Answer

Stage = Literal["recording", "audio", "transcript", "embeddings"]


class BackupCopy(BaseModel):
    """A backup set that still holds what was deleted."""

    set_id: str
    destination: str
    taken_at: datetime
    expires_at: datetime | None


class Receipt(Answer):
    """What a deletion removed."""

    audio_id: int
    original_name: str = Field(examples=["meeting.m4a"])
    file_hash: str
    deleted_at: datetime
    rows: dict[str, int] = Field(description="How many of each table.")
    keys: list[str] = Field(description="The files.")
    stage: Stage = Field(description="What of the recording.")
    rule: str | None = Field(description="The retention rule that said so.")
    indexes: dict[str, str] = Field(description="Whether each vector index has forgotten it.")
    scrubbed: bool = Field(description="Nothing of it is left in the database's own files either.")
    backups: list[BackupCopy] = Field(description="What still holds it, and until when.")
