"""The reference pages are what the code says."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "generate_reference.py"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    namespace: dict[str, Any] = runpy.run_path(str(SCRIPT), run_name="generate_reference")
    made: dict[str, str] = namespace["pages"]()
    return made


@pytest.mark.parametrize("name", ["cli.md", "settings.md", "errors.md", "python.md", "mcp.md", "http.md"])
def test_the_reference_is_what_the_code_says(pages: dict[str, str], name: str) -> None:
    written = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert written == pages[name], "run: python scripts/generate_reference.py"


def test_every_command_is_described_with_its_options(pages: dict[str, str]) -> None:
    page = pages["cli.md"]
    commands = [
        *"init add watch record search list show export retranscribe reembed rm stats reindex copy restore".split(),
        *"worker doctor models demo mcp".split(),
    ]
    groups = [
        "transcripts list",
        "transcripts show",
        "transcripts activate",
        "transcripts import",
        "transcripts diff",
        *("jobs list", "jobs show", "jobs cancel", "jobs retry", "jobs follow"),
        *("users add", "users list", "users remove", "users join", "users leave"),
        *("grants give", "grants list", "grants revoke", "tokens create", "tokens list", "tokens revoke"),
        *(f"backup {name}" for name in ("create", "list", "verify", "rehearse", "prune")),
        "metadata get",
        "metadata set",
    ]
    for name in [*commands, *groups, "metadata unset"]:
        assert f"## audio-storage {name}\n" in page
    assert "`--whisper-model`, `--model` SPEC" in page
    assert "keep/update/error" in page


def test_every_setting_has_a_meaning(pages: dict[str, str]) -> None:
    rows = [line for line in pages["settings.md"].splitlines() if line.startswith("| `")]
    assert len(rows) >= 9
    assert all(row.split("|")[4].strip() for row in rows)


def test_every_operation_of_the_server_is_on_the_page(pages: dict[str, str]) -> None:
    for operation in ("whoami", "list_users", "create_token", "create_backup"):
        assert f"| `{operation}` |" in pages["http.md"]
