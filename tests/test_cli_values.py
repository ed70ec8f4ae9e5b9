"""What is written on a command line becomes the values and conditions that were meant."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_storage_system.errors import InvalidFilter, InvalidInput, InvalidMetadata
from audio_storage_system.notation import parse_instant, parse_metadata, parse_value, parse_where


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("john", "john"),
        ("1", 1),
        ("-20", -20),
        ("2.5", 2.5),
        ("1.5e3", 1500.0),
        ("true", True),
        ("false", False),
        ("True", "True"),
        ("007", "007"),
        ("+4930123", "+4930123"),
        ("1e5", "1e5"),
        ("nan", "nan"),
        ('"1"', "1"),
        ('"true"', "true"),
        ("", ""),
        ("2026-11-22", date(2026, 11, 22)),
        ("2026-11-22T12:00", datetime(2026, 11, 22, 12, tzinfo=UTC)),
        ("2026-11-22T12:00:00+01:00", datetime(2026, 11, 22, 12, tzinfo=timezone(timedelta(hours=1)))),
        ("2026-13-40", "2026-13-40"),
        ("a=b", "a=b"),
    ],
)
def test_a_value_is_read_as_what_it_looks_like(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@given(st.text())
def test_any_text_in_quotes_is_that_text(text: str) -> None:
    assert parse_value(f'"{text}"') == text


def test_digits_without_end_are_text() -> None:
    assert parse_value("9" * 5000) == "9" * 5000


def test_metadata_keeps_what_follows_the_first_equals_sign() -> None:
    assert parse_metadata(["user=john", "n=1", "url=http://a/?b=c"]) == {"user": "john", "n": 1, "url": "http://a/?b=c"}


@pytest.mark.parametrize("pair", ["user", "=x", "  =x", ""])
def test_metadata_that_is_no_pair_is_refused(pair: str) -> None:
    with pytest.raises(InvalidMetadata, match="KEY=VALUE"):
        parse_metadata([pair])


@pytest.mark.parametrize(
    ("conditions", "where"),
    [
        (["user=john"], {"user": "john"}),
        (["n>=5"], {"n": {"gte": 5}}),
        (["n > 5", "n<=7.5"], {"n": {"gt": 5, "lte": 7.5}}),
        (["user in ann, bob"], {"user": {"in": ["ann", "bob"]}}),
        (['user in "a,b",c'], {"user": {"in": ["a,b", "c"]}}),
        (["user"], {"user": {"exists": True}}),
        (["!user"], {"user": {"exists": False}}),
        (["note=made in a,b"], {"note": "made in a,b"}),
        (["day>=2026-11-22"], {"day": {"gte": date(2026, 11, 22)}}),
        (["engine=pocketsphinx", "duration>60"], {"engine": "pocketsphinx", "duration": {"gt": 60}}),
        (["user", "user=ann"], {"user": {"exists": True, "eq": "ann"}}),
        ([], {}),
        (None, {}),
    ],
)
def test_conditions_become_a_filter(conditions: list[str] | None, where: dict[str, Any]) -> None:
    assert parse_where(conditions) == where


@pytest.mark.parametrize("conditions", [["=5"], [""], ["!"], [">=3"], ["a=1", "a=2"], ["n>1", "n>2"]])
def test_conditions_that_make_no_sense_are_refused(conditions: list[str]) -> None:
    with pytest.raises(InvalidFilter):
        parse_where(conditions)


def test_a_date_means_its_midnight_in_utc() -> None:
    assert parse_instant("--since", "2026-11-22") == datetime(2026, 11, 22, tzinfo=UTC)
    assert parse_instant("--since", None) is None
    with pytest.raises(InvalidInput, match="--since is no ISO 8601 time"):
        parse_instant("--since", "yesterday")
