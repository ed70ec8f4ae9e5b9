"""How long things are kept: rules, legal holds, the trash, and carrying out what they say."""

from audio_storage_system.retention.board import Retention
from audio_storage_system.retention.holding import Holds
from audio_storage_system.retention.planning import Action, Candidate, Decision, RetentionRule, plan
from audio_storage_system.retention.running import RetentionRun
from audio_storage_system.retention.trash import Emptied, Trash

__all__ = [
    "Action",
    "Candidate",
    "Decision",
    "Emptied",
    "Holds",
    "Retention",
    "RetentionRule",
    "RetentionRun",
    "Trash",
    "plan",
]
