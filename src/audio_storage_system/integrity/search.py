"""Whether the full text and the vector indexes hold what the catalogue holds. All of it is derived."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from audio_storage_system.archive import Archive
from audio_storage_system.catalogue import fts5, fulltext, locks
from audio_storage_system.catalogue.embeddings import spaces
from audio_storage_system.errors import ArchiveReadOnly, VectorIndexUnavailable
from audio_storage_system.integrity.findings import Finding, Severity
from audio_storage_system.integrity.looking import Check, Look
from audio_storage_system.records import Space
from audio_storage_system.vectors.base import Difference

REMADE = "The full text is made anew."


def _full_text(look: Look) -> Iterator[Finding]:
    """Every passage is indexed, once, and nothing else; when contents are read, with its own words."""
    with look.archive.database.read() as connection:
        if not fulltext.is_there(connection):
            yield from filter(None, [_of_text([0], "it is not there", "table")])
            return
        found = [
            _of_text(fulltext.missing(connection), "passages are not in it, or not as those of their recording"),
            _of_text(fulltext.surplus(connection), "passages are in it that are not there, or twice"),
        ]
        if look.deep:
            found.append(_of_text(fulltext.differing(connection), "passages are in it with other words"))
    yield from (finding for finding in found if finding)
    if look.deep and look.archive.database.dialect.name == "sqlite":
        yield from _consistency(look)


def _of_text(ids: Iterable[int], what: str, kind: str = "passage") -> Finding | None:
    given: dict[str, Any] = {"severity": Severity.WARNING, "remedy": REMADE, "kind": kind, "repairable": True}
    return Finding.of(ids, check="full text", what=f"the full text: {what}", **given)


def _consistency(look: Look) -> Iterator[Finding]:
    """FTS5 looks through its own index: the lists of words against the rows. It takes the write lock for that."""
    try:
        with look.archive.database.write() as connection:
            whole = fts5.is_consistent(connection)
    except ArchiveReadOnly:
        look.skipped["full text"] = "the lists of FTS5 against its rows, which takes a lock that writes"
        return
    if not whole and (finding := _of_text([0], "its index is damaged", "table")):
        yield finding


def _rebuild_text(archive: Archive, findings: Sequence[Finding]) -> None:
    with archive.database.write(locks.FULL_TEXT) as connection:
        fulltext.rebuild(connection, archive.settings.partition)


def _indexes(look: Look) -> Iterator[Finding]:
    """The vector index of each space, id by id both ways; when contents are read, code by code where there are any."""
    with look.archive.database.read() as connection:
        every = spaces(connection)
    for number, space in enumerate(every):
        look.progress("vector indexes", number, len(every))
        try:
            yield from _findings(space, _confirmed(look, space))
        except VectorIndexUnavailable as error:
            look.skipped["vector index"] = str(error)


def _confirmed(look: Look, space: Space) -> Difference:
    """What two looks see alike: an index follows what others write a moment later."""
    first = look.archive.index.differences(space, deep=look.deep)
    if not first:
        return first
    look.settle()
    return first.still(look.archive.index.differences(space, deep=look.deep))


def _findings(space: Space, wrong: Difference) -> Iterator[Finding]:
    name = f"the index of {space.kind.value}:{space.model}"
    given: dict[str, Any] = {"check": "vector index", "severity": Severity.WARNING, "remedy": "The index is made anew."}
    found = [
        Finding.of(wrong.missing.tolist(), what=f"{name} lacks embeddings", kind="embedding", repairable=True, **given),
        Finding.of(
            wrong.surplus.tolist(),
            what=f"{name} holds embeddings that are not there",
            kind="embedding",
            repairable=True,
            **given,
        ),
        Finding.of(
            [space.id] * bool(wrong.reason), what=f"{name}: {wrong.reason}", kind="space", repairable=True, **given
        ),
    ]
    yield from (finding for finding in found if finding)


def _rebuild_indexes(archive: Archive, findings: Sequence[Finding]) -> None:
    with archive.database.read() as connection:
        every = spaces(connection)
    for space in every:
        if any(f"the index of {space.kind.value}:{space.model}" in finding.what for finding in findings):
            archive.index.rebuild(space)


CHECKS = (Check("full text", _full_text, _rebuild_text), Check("vector index", _indexes, _rebuild_indexes))
