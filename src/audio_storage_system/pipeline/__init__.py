"""The steps: store → transcribe → embed. Functions over ids; each commits its result once and can be run again."""

from audio_storage_system.pipeline.activation import RULES, Decision, Rule, rule_of
from audio_storage_system.pipeline.batches import batches
from audio_storage_system.pipeline.differences import Change, Comparison, compare
from audio_storage_system.pipeline.embedding import embed
from audio_storage_system.pipeline.engines import Engines, check_spec
from audio_storage_system.pipeline.fernet import decrypted, inner_name
from audio_storage_system.pipeline.importing import ImportedVersion, import_version
from audio_storage_system.pipeline.sources import Source, as_model_input, as_waveform
from audio_storage_system.pipeline.storing import (
    BLOB_PREFIX,
    Entered,
    OnDuplicate,
    Stored,
    adopt_orphans,
    check_request,
    opened_file,
    sha256_of,
    store,
)
from audio_storage_system.pipeline.transcription import Made, Task, transcribe, transcribe_sample

__all__ = [
    "BLOB_PREFIX",
    "RULES",
    "Change",
    "Comparison",
    "Decision",
    "Engines",
    "Entered",
    "ImportedVersion",
    "Made",
    "OnDuplicate",
    "Rule",
    "Source",
    "Stored",
    "Task",
    "adopt_orphans",
    "as_model_input",
    "as_waveform",
    "batches",
    "check_request",
    "check_spec",
    "compare",
    "decrypted",
    "embed",
    "import_version",
    "inner_name",
    "opened_file",
    "rule_of",
    "sha256_of",
    "store",
    "transcribe",
    "transcribe_sample",
]
