"""Backups: consistent, incremental sets of an archive in a folder or bucket, and the way back.

A set is logical: rows as text, in packs named by their hash, and audio as it is stored. So it is taken while the
archive is in use, restores onto any backend, and costs what is new.
"""

from audio_storage_system.backup.board import Backups
from audio_storage_system.backup.pruning import PruneReport, SetDecision
from audio_storage_system.backup.report import (
    BackupProgress,
    BackupReport,
    BackupSet,
    Damage,
    RestoreReport,
    VerifyReport,
)
from audio_storage_system.backup.restoring import restore_backup

__all__ = [
    "BackupProgress",
    "BackupReport",
    "BackupSet",
    "Backups",
    "Damage",
    "PruneReport",
    "RestoreReport",
    "SetDecision",
    "VerifyReport",
    "restore_backup",
]
