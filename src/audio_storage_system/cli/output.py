"""What the program says: results on stdout, everything else on stderr.

With `--json` stdout is one JSON document and nothing else.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from audio_storage_system.records import jsonable

PIPED_WIDTH = 200  # columns of a table that goes into a file or another program


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command puts its results."""

    as_json: bool = False

    @property
    def asks(self) -> bool:
        """Whether there is somebody to ask."""
        return not self.as_json and sys.stdin.isatty() and sys.stdout.isatty()

    def document(self, data: Any) -> None:
        """The one JSON document, with `--json` only."""
        if self.as_json:
            sys.stdout.write(_as_json(data, indent=2) + "\n")

    def result(self, data: Any, text: str) -> None:
        """What a command did: the document, or a line for people."""
        self.document(data)
        self.line(text)

    def event(self, data: Any, text: str) -> None:
        """What happens while a command goes on: a line of JSON, or of text for people, at once."""
        sys.stdout.write((_as_json(data) if self.as_json else text) + "\n")
        sys.stdout.flush()

    def line(self, text: str = "") -> None:
        """A line for people; left out with `--json`."""
        if not self.as_json:
            sys.stdout.write(text + "\n")

    def styled(self, *parts: tuple[str, str]) -> None:
        """A line of (text, rich style) pairs for people. The text is taken as it is, brackets and all."""
        if not self.as_json:
            from rich.text import Text

            _console().print(Text.assemble(*parts), soft_wrap=True)

    def marked(self, opening: str, text: str, closing: str) -> str:
        """`text` between these marks where there are no colours to tell what it is."""
        return text if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else f"{opening}{text}{closing}"

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
        """A table for people. Columns named in `right` are aligned to the right."""
        if not self.as_json:
            _print_table(columns, rows, right)

    def error(self, error: dict[str, Any]) -> None:
        """Why a command ended early; with `--json` also as the document."""
        self.document({"error": error})
        say(f"Error: {error['message']}")


def _as_json(data: Any, indent: int | None = None) -> str:
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    return json.dumps(jsonable(data), indent=indent, ensure_ascii=ascii_only, allow_nan=False, default=str)


def say(text: str) -> None:
    """A line on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def prepare_streams() -> None:
    """Let names and texts that the terminal's encoding lacks be shown escaped instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def forget_stdout() -> None:
    """Whoever read stdout is gone: what is still to be written goes nowhere, quietly."""
    sys.stdout = open(os.devnull, "w")


def hear_warnings() -> None:
    """Show what the library logs, each message once, the way people are talked to."""
    logger = logging.getLogger("audio_storage_system")
    for handler in [handler for handler in logger.handlers if isinstance(handler, _Speaker)]:
        logger.removeHandler(handler)
    logger.addHandler(_Speaker(logging.WARNING))


class _Speaker(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._said:
            self._said.add(message)
            first = message.split(" ", 1)[0]
            say(message[:1].upper() + message[1:] if first.isalpha() else message)  # a file's name stays as it is


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    _console().print(table)
