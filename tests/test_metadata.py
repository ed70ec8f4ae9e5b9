"""Metadata values: what can be kept comes back as it was, the rest is refused with a reason."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_storage_system.catalogue.metadata import decode, encode, validate
from audio_storage_system.errors import InvalidMetadata

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
values = st.one_of(
    texts,
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.none(),
    st.dates(),
    st.datetimes(timezones=st.just(UTC)),
    st.lists(st.integers() | texts),
    st.dictionaries(texts, st.integers()),
)


@given(values)
def test_values_come_back_as_they_were(value: Any) -> None:
    encoded = encode("key", value)
    assert decode(encoded.value, encoded.value_type) == value
    assert type(decode(encoded.value, encoded.value_type)) is type(value)


@pytest.mark.parametrize(
    ("value", "text", "number"),
    [
        ("john", "john", None),
        (1, "1", 1.0),
        (True, "true", None),
        (2.5, "2.5", 2.5),
        (datetime(1970, 1, 2, tzinfo=UTC), "1970-01-02T00:00:00+00:00", 86400.0),
        (date(1970, 1, 2), "1970-01-02", 86400.0),
        (np.float32(0.5), "0.5", 0.5),
        (np.int64(7), "7", 7.0),
        (10**400, str(10**400), None),
    ],
)
def test_values_are_plain_text_and_numbers_have_a_number(value: Any, text: str, number: float | None) -> None:
    encoded = encode("key", value)
    assert (encoded.value, encoded.value_number) == (text, number)


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        object(),
        {1, 2},
        float("nan"),
        float("inf"),
        datetime(2026, 1, 1),
        "a\0b",
        "\ud800",
        [float("nan")],
        {"a": object()},
    ],
)
def test_values_without_a_plain_form_are_refused(value: Any) -> None:
    with pytest.raises(InvalidMetadata, match="'key'"):
        encode("key", value)


@pytest.mark.parametrize("key", ["", "  ", 1, None, "a\0b", "x" * 256, ("a",)])
def test_odd_keys_are_refused(key: Any) -> None:
    with pytest.raises(InvalidMetadata):
        encode(key, "value")


@pytest.mark.parametrize("whole", [None, [("a", 1)], "a=1", 7])
def test_metadata_is_a_mapping(whole: Any) -> None:
    with pytest.raises(InvalidMetadata, match="mapping"):
        validate(whole)


def test_huge_values_are_refused() -> None:
    with pytest.raises(InvalidMetadata, match="at most"):
        encode("key", "x" * 1_000_001)
