"""Verification: does the archive hold what it says it holds, and does everything derived follow from it?"""

from audio_storage_system.integrity.findings import Finding, Severity, Verification
from audio_storage_system.integrity.looking import Check, Look
from audio_storage_system.integrity.quarantine import Quarantine
from audio_storage_system.integrity.verification import CHECKS, verify

__all__ = ["CHECKS", "Check", "Finding", "Look", "Quarantine", "Severity", "Verification", "verify"]
