"""The command line: a thin skin over `AudioStorageSystem`, one file per group of commands.

Nothing heavy is imported before a command needs it: `audio-storage --help` answers at once.
"""

from audio_storage_system.cli.app import app, main

__all__ = ["app", "main"]
