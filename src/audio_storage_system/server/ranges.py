"""Which part of a resource is asked for, and whether it has to be sent at all (RFC 9110, chapters 13 and 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

MOST_RANGES = 16
_RANGE = re.compile(r"(\d{0,18})-(\d{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Version:
    """What a resource is at present: how many bytes, a strong tag of these, and when they last changed."""

    size: int
    tag: str
    changed_at: datetime

    @property
    def etag(self) -> str:
        return f'"{self.tag}"'

    @property
    def last_modified(self) -> str:
        return format_datetime(self.changed_at.astimezone(UTC), usegmt=True)


@dataclass(frozen=True, slots=True)
class Part:
    """What to answer with: 200 and everything, 206 and these ranges, 304 or 412 or 416 and nothing."""

    status: int
    ranges: Sequence[range] = ()


def select(headers: Mapping[str, str], version: Version) -> Part:
    """What a GET with these headers is answered with."""
    if (status := _precondition(headers, version)) is not None:
        return Part(status)
    whole = Part(200, [range(version.size)])
    wanted = headers.get("range")
    if wanted is None or not _still_holds(headers.get("if-range"), version):
        return whole
    asked = parse(wanted, version.size)
    if asked is None:
        return whole
    return Part(206, asked) if asked else Part(416)


def parse(header: str, size: int) -> list[range] | None:
    """The parts of `size` bytes that a Range header names, in order and apart from each other; empty where there is
    nothing there; `None` for what is to be ignored: another unit, what is no range, more ranges than anybody needs."""
    unit, _, specs = header.partition("=")
    found = [_RANGE.fullmatch(spec.strip()) for spec in specs.split(",")]
    if unit.strip().lower() != "bytes" or len(found) > MOST_RANGES:
        return None
    ranges = []
    for match in found:
        if match is None or not any(match.groups()):
            return None
        first, last = match.groups()
        if first and last and int(first) > int(last):
            return None
        start = int(first) if first else max(0, size - int(last))
        ranges.append(range(start, min(size, int(last) + 1) if first and last else size))
    return _joined([part for part in ranges if part])


def _joined(ranges: list[range]) -> list[range]:
    """One range for those that touch or overlap; others as they were asked for, if all are apart."""
    ordered = sorted(ranges, key=lambda part: part.start)
    joined: list[range] = []
    for part in ordered:
        if joined and part.start <= joined[-1].stop:
            joined[-1] = range(joined[-1].start, max(joined[-1].stop, part.stop))
        else:
            joined.append(part)
    return ranges if len(joined) == len(ranges) else joined


def _precondition(headers: Mapping[str, str], version: Version) -> int | None:
    """The status for a condition that does not hold, in the order that RFC 9110, 13.2.2 gives."""
    if (match := headers.get("if-match")) is not None:
        if not _names(match, version, weakly=False):
            return 412
    elif (since := _date(headers.get("if-unmodified-since"))) is not None and _seconds(version) > since:
        return 412
    if (none := headers.get("if-none-match")) is not None:
        return 304 if _names(none, version, weakly=True) else None
    if (since := _date(headers.get("if-modified-since"))) is not None and _seconds(version) <= since:
        return 304
    return None


def _names(header: str, version: Version, *, weakly: bool) -> bool:
    tags = [tag.strip() for tag in header.split(",")]
    return "*" in tags or version.etag in [tag.removeprefix("W/") if weakly else tag for tag in tags]


def _still_holds(condition: str | None, version: Version) -> bool:
    return condition is None or condition.strip() in (version.etag, version.last_modified)


def _seconds(version: Version) -> datetime:
    return version.changed_at.astimezone(UTC).replace(microsecond=0)


def _date(header: str | None) -> datetime | None:
    """A date in a header; `None` for anything else, which is ignored."""
    if header is None:
        return None
    try:
        moment = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
