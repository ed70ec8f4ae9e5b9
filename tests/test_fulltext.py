"""Full text: what a query finds, in which order, in which language, and that no text is ever an error."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio_storage_system import marker
from audio_storage_system.catalogue import analysis, bm25, fulltext, passages, query_text, recordings, transcripts
from audio_storage_system.database import Database
from audio_storage_system.records import AudioInfo, Passage, Segment, Span
from catalogues import Catalogues

WAV = AudioInfo(60.0, 16_000, 1, "pcm_s16le", "audio/wav")
ODD = ['"', '""', "*", "-", '-"', "AND", "NOT x", "NEAR(a b)", "words : a", "{words stems} : a", "^a", "a\0b", "\ud800"]
ODD += ["'); DROP TABLE passages_fts; --", "a OR", "(", "-*", "* *", "“„", "\U0010ffff", "a" * 100_000, "\u0301" * 9999]


class Index:
    """A database with full text, and the shortest way to fill and ask it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.languages: set[str | None] = set()
        with self.database.write() as connection:
            marker.create(connection)
            fulltext.create(connection)

    def store(self, *texts: str, language: str | None = "en") -> list[int]:
        """One recording with a passage for each text; the passages' ids."""
        self.languages.add(language)
        with self.database.write() as connection:
            audio_id = _recording(connection)
            version = transcripts.start(
                connection, audio_id, asked="base", engine="test", parameters={}, language=language
            )
            said = [Segment(float(i), i + 1.0, text) for i, text in enumerate(texts)]
            stored = transcripts.commit_window(connection, version, 0, Span(0, len(said)), said, 0)
            rows = [Passage(i, s.id or 0, s.id or 0, s.start, s.end, s.text) for i, s in enumerate(stored)]
            owner = {"transcript_id": version, "audio_id": audio_id, "owner_id": 1}
            return passages.add(connection, rows, language=language, **owner)

    def search(self, query: str, limit: int = 100, allowed: set[int] | None = None, **options: object) -> list:
        with self.database.read() as connection:
            return fulltext.search(
                connection,
                query,
                limit=limit,
                admit=lambda ids: set(ids) if allowed is None else allowed.intersection(ids),
                languages=self.languages,
                **options,
            )

    def find(self, query: str, **options: object) -> list[int]:
        return [id_ for id_, _ in self.search(query, **options)]


def _recording(connection: object) -> int:
    return recordings.add(
        connection,
        owner_id=1,
        file_hash=random.randbytes(8).hex(),
        file_path=random.randbytes(8).hex(),
        file_size=1,
        original_name="a.wav",
        info=WAV,
        recorded_at=datetime(2026, 1, 1, tzinfo=UTC),
        offset_minutes=None,
        values={},
    )


@pytest.fixture
def index(catalogues: Catalogues, tmp_path: Path) -> Iterator[Index]:
    with catalogues.database(tmp_path) as database:
        yield Index(database)


@pytest.fixture(scope="module")
def shared(catalogues: Catalogues, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """600 passages of 3 to 12 words out of a few, some of them everywhere."""
    with catalogues.database(tmp_path_factory.mktemp("shared")) as database:
        index = Index(database)
        chance = random.Random(1)
        vocabulary = ["the"] * 20 + ["budget"] * 6 + ["meeting", "ship", "remote", "voice", "paint"] * 2 + ["zebra"]
        index.store(*(" ".join(chance.choices(vocabulary, k=chance.randint(3, 12))) for _ in range(600)))
        yield index


# What a query means


def test_any_of_the_words_is_enough_and_more_and_rarer_ones_are_better(index: Index) -> None:
    both, rare, common, _ = index.store(
        "the budget of the zebra", "a zebra again in here", "a budget of ours here", "nothing of it here"
    )
    index.store(*["the budget again"] * 5)
    assert index.find("zebra budget")[:2] == [both, rare]
    assert common in index.find("zebra budget")


def test_a_word_is_found_in_every_form(index: Index) -> None:
    [said] = index.store("We were running the meetings")
    assert index.find("run") == index.find("meeting RUNS") == [said]


def test_quotes_ask_for_exactly_these_words(index: Index) -> None:
    [kennedy, _, _] = index.store(
        "And so my fellow Americans: ask not what your country can do", "do not ask for whom", "she asked not to come"
    )
    assert index.find('"ask not"') == index.find("“Ask  NOT”") == [kennedy]
    assert index.find('"asks not"') == []
    assert index.find('"ask not" zebra') == [kennedy]


def test_a_minus_excludes_every_form_of_a_word_or_a_phrase(index: Index) -> None:
    draft, final, _ = index.store("the budget drafts", "the final budget says don't", "nothing")
    assert index.find("budget -draft") == [final]
    assert index.find('budget -"final budget"') == index.find("budget -don't") == [draft]
    assert index.find("-draft") == index.find('-"final budget"') == []


def test_a_word_after_a_hyphen_inside_a_word_is_not_excluded(index: Index) -> None:
    [said] = index.store("a well-known e-mail")
    assert index.find("well-known") == index.find("known") == index.find('"well known"') == [said]


def test_a_star_finds_every_word_that_begins_so(index: Index) -> None:
    first, second, _ = index.store("the universe", "many universities", "the union")
    assert sorted(index.find("univers*")) == sorted(index.find("UNIVERSI* universe")) == [first, second]
    assert index.find("universi*") == [second]


def test_the_better_of_two_passages_says_it_more_often_or_is_shorter(index: Index) -> None:
    long, once, twice = index.store("zebra " + "word " * 300, "zebra one two three", "zebra zebra two three")
    assert index.find("zebra") == [twice, once, long]


def test_scores_are_above_zero_and_ties_go_by_id(index: Index) -> None:
    ids = index.store(*["the same words"] * 20)
    found = index.search("the same")
    assert [id_ for id_, _ in found] == ids
    assert all(score > 0 for _, score in found)
    assert found[:7] == index.search("the same", limit=7)
    assert index.search("same", limit=0) == []


# Languages


@pytest.mark.parametrize(
    ("language", "text", "queries"),
    [
        ("de", "Wir öffnen die Häuser in der großen Straße", ["Haus", "strasse", "GROẞE", "offnen", '"der grossen"']),
        ("fr", "L’été dernier nous avons parlé des œuvres", ["ete", "été", "parler", "l'ete", '"nous avons parle"']),
        ("es", "Las canciones del niño", ["canción", "nino", "niños"]),
        ("ru", "Мы обсуждали важные вопросы о Ёлке", ["вопрос", "ЁЛКА", "елке", "обсуждать"]),
        ("el", "Οι άνθρωποι στην Αθήνα", ["άνθρωπος", "ΑΘΗΝΑ", "αθηνα"]),
        ("ar", "قَرَأتُ الكِتَابَ", ["الكتاب", "الكـــتاب", "كتاب"]),
        ("he", "שָׁלוֹם עולם", ["שלום"]),
        ("hi", "बैठक में बजट पर चर्चा", ["बजट", '"बजट पर"']),
        ("zh", "我们讨论了预算的问题", ["预算", "讨论预算", "题", "我", '"了预算的"', '"预"', "预*"]),
        ("zh", "用iPhone手机打电话", ["iphone", "手机", '"iPhone手机"', '"用iphone手"']),
        ("ja", "来週の会議は東京でカタカナ", ["会議", "東京", "ｶﾀｶﾅ", '"東京で"', "京"]),
        ("ko", "회의에서 예산을 논의했습니다", ["예산", "회의", '"예산을 논의"']),
        ("th", "เราประชุมเรื่องงบประมาณ", ["งบประมาณ", "ประชุม", '"เรื่องงบ"']),
        ("km", "យើងពិភាក្សាអំពីថវិកា", ["ថវិកា"]),
        ("tr", "İstanbul'da ışıklar", ["istanbul", "ISTANBUL", "ışık", "isiklar"]),
        ("pl", "Łódź i gęś", ["lodz", "GES"]),
        ("vi", "Việt Nam", ["viet nam", "VIỆT"]),
        (None, "Donau\u00addampf und ＡＢＣ", ["donaudampf", "abc"]),
    ],
)
def test_what_was_said_is_found_in_its_language(
    index: Index, language: str | None, text: str, queries: Sequence[str]
) -> None:
    [said] = index.store(text, language=language)
    index.store("Something else altogether", language="en")
    for query in queries:
        assert index.find(query) == [said], query


def test_unspaced_writing_is_told_apart(index: Index) -> None:
    [said] = index.store("我们讨论了预算", language="zh")
    assert index.find("天气") == index.find('"预算了"') == index.find('"论预"') == []
    assert index.find("預 讨论") == [said]


def test_of_a_passage_longer_than_any_every_word_is_found(index: Index) -> None:
    words = " ".join(f"w{number}" for number in range(20_000))
    [said] = index.store(f"{'budget ' * 300}{words} zebras")
    assert index.find("budget") == index.find("w19999") == index.find("zebra") == index.find('"w7 w8"') == [said]


def test_voiced_kana_and_thai_vowels_are_not_optional(index: Index) -> None:
    index.store("かき", "เสอ", language="ja")
    assert index.find("がき") == index.find("เสือ") == []


def test_one_query_searches_every_language_of_the_archive(index: Index) -> None:
    [english] = index.store("the houses", language="en")
    [german] = index.store("die Häuser", language="de")
    [unknown] = index.store("houses", language=None)
    assert sorted(index.find("houses Häuser")) == [english, german, unknown]


def test_every_stemmer_takes_any_word() -> None:
    chance = random.Random(2)
    alphabet = [chr(c) for c in range(0x20, 0x3000) if chr(c).isalnum()]
    words = ["".join(chance.choices(alphabet, k=chance.randint(1, 12))) for _ in range(3000)]
    for language in analysis.STEMMERS:
        assert all(analysis.stem(word, language) or not analysis.bare(word) for word in words)


@given(st.text(), st.sampled_from([*analysis.STEMMERS, None]))
def test_terms_are_safe_and_the_same_for_upper_and_composed_writing(text: str, language: str | None) -> None:
    terms = analysis.words(text) + analysis.stems(text, language)
    assert all(term and '"' not in term and "\0" not in term and not term.isspace() for term in terms)
    assert all(term.encode() and (not term.isascii() or term.isalnum()) for term in terms)
    assert len(analysis.words(text)) >= math.floor(analysis.count_words(text))
    assert analysis.terms(text, language) == (analysis.words(text), analysis.stems(text, language))


@given(st.text(st.characters(codec="utf-8")), st.text(st.sampled_from("aZ09_-' \n"), min_size=1))
def test_words_are_the_same_beside_any_other_writing(text: str, plain: str) -> None:
    both = analysis.words(f"{plain} {text}")
    assert both == analysis.words(plain) + analysis.words(text)


def test_a_word_without_end_is_cut_and_no_second_word() -> None:
    for letter in "aé":
        assert [len(word) for word in analysis.split(f"{letter * 450} b")] == [analysis.MAX_WORD_LENGTH, 1]


def test_a_passage_counts_in_words_however_they_are_written() -> None:
    assert analysis.count_words("Ask not what your country") == 5
    assert analysis.count_words("我们讨论了预算") == 3.5


# Any text at all


@pytest.mark.parametrize("query", ODD)
def test_odd_texts_are_no_errors(shared: Index, query: str) -> None:
    shared.search(query)
    assert shared.find(query + " zebra") or len(query) > 9000 or query in ("NOT x", "-", '-"')
    shared.search("zebra " + query)


@pytest.mark.parametrize("query", ["", " ", "?!", '"', '""', "*", "-zebra", "\0", "\ud800", "🎉", '-"the zebra"'])
def test_a_query_without_a_usable_word_finds_nothing(shared: Index, query: str) -> None:
    assert shared.search(query) == []


@given(st.text() | st.lists(st.sampled_from([*ODD, "zebra", "the", "bud*", '"the budget"'])).map(" ".join))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_text_is_an_error(shared: Index, query: str) -> None:
    found = shared.search(query)
    assert [id_ for id_, _ in sorted(found, key=lambda hit: (-hit[1], hit[0]))] == [id_ for id_, _ in found]


@pytest.mark.parametrize("piece", ["zebra budget ", "a", '"', '"the" ', "-b ", "\0", "ﷺ", "中", "x* ", "\u0301"])
def test_ten_megabytes_are_searched_by_their_beginning(
    shared: Index, piece: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(query_text, "split", lambda text: taken.append(len(text)) or analysis.split(text))  # type: ignore[func-returns-value]
    endless = piece * (10_000_000 // len(piece))
    found = shared.search(endless)
    assert sum(taken) <= query_text.MAX_CHARACTERS
    assert found == shared.search(endless[: query_text.MAX_CHARACTERS])


def test_nothing_of_the_databases_own_language_gets_through(shared: Index) -> None:
    assert shared.find("words : zebra") == shared.find("zebra")
    assert shared.find("NEAR(zebra)") == shared.find("zebra")
    either = {*shared.find("zebra", limit=1000), *shared.find("voice", limit=1000)}
    assert set(shared.find("zebra AND voice", limit=1000)) == either


# Filters


@pytest.mark.parametrize("query", ["zebra", "the budget", '"the budget" voice', "ship* -zebra", "meeting -the remote"])
@pytest.mark.parametrize("share", [0.5, 0.05, 0.005, 0.0])
@pytest.mark.parametrize("known", [True, False])
def test_the_result_equals_filtering_first(shared: Index, query: str, share: float, known: bool) -> None:
    everything = shared.search(query, limit=10_000)
    chance = random.Random(share)
    allowed = {id_ for id_ in range(1, 601) if chance.random() < share}
    within = np.array(sorted(allowed), np.int64) if known else None
    found = shared.search(query, limit=10, allowed=allowed, within_ids=within)
    assert found == [hit for hit in everything if hit[0] in allowed][:10]


def test_a_filter_that_only_the_worst_passages_pass_still_finds_them(index: Index) -> None:
    index.store(*["zebra zebra zebra"] * 2500)
    last = index.store("a zebra among many other animals", "the very last zebra of all the many animals")
    assert index.find("zebra", limit=5, allowed=set(last)) == last


def test_the_best_of_very_many_passages_is_found(index: Index) -> None:
    index.store(*["a zebra among many"] * 2500)
    [best] = index.store("zebra zebra zebra")
    assert index.find("zebra", limit=1) == [best]


def test_passages_are_admitted_in_growing_batches_that_a_database_can_take(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fulltext, "LARGEST_BATCH", 600)
    ids = index.store(*["zebra"] * 1500)
    sizes: list[int] = []

    def admit(batch: Sequence[int]) -> set[int]:
        sizes.append(len(batch))
        return {id_ for id_ in batch if id_ == ids[-1]}

    with index.database.read() as connection:
        found = fulltext.search(connection, "zebra", limit=3, admit=admit)
    assert [id_ for id_, _ in found] == ids[-1:]
    assert sizes == [400, 600, 500]


# Frequent words


def _frequent(index: Index, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    monkeypatch.setattr(fulltext, "MAX_POSTINGS", 20)
    index.store(*["common words"] * 30)
    return index.store("one common thing", "two common things", "three of a kind", "four of a kind")


def test_the_most_frequent_word_is_left_out_when_the_rest_says_enough(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = _frequent(index, monkeypatch)
    assert sorted(index.find("one two three four common")) == rare


def test_the_rarest_three_words_are_never_left_out(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    _frequent(index, monkeypatch)
    assert len(index.find("one two common", limit=1000)) == 32
    assert len(index.find("common words", limit=1000)) == 32
    assert len(index.find("nowhere unheard unsaid nonsense common", limit=1000)) == 32


def test_words_in_quotes_are_never_left_out(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    _frequent(index, monkeypatch)
    assert len(index.find('one two three four "common words"', limit=1000)) == 30


def test_below_the_limit_no_word_is_left_out(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    _frequent(index, monkeypatch)
    monkeypatch.setattr(fulltext, "MAX_POSTINGS", 50)
    assert len(index.find("one two three four common", limit=1000)) == 34


def test_a_word_said_for_the_first_time_is_found_at_once(index: Index) -> None:
    index.store("nothing of it")
    query = "alpha beta gamma delta nothing"
    index.find(query)
    [said] = index.store("delta")
    assert said in index.find(query)


# Keeping the table


def test_removed_passages_are_gone_and_removing_again_is_no_error(index: Index) -> None:
    gone, kept = index.store("zebra one", "zebra two")
    with index.database.write() as connection:
        fulltext.remove(connection, [gone, 999])
        fulltext.remove(connection, [gone])
        fulltext.remove(connection, [])
    assert index.find("zebra") == [kept]
    assert index.find("one") == []


def test_adding_a_passage_again_replaces_it(index: Index) -> None:
    [said] = index.store("zebra")
    with index.database.write() as connection:
        fulltext.add(connection, [(said, "giraffe", "en")])
    assert (index.find("zebra"), index.find("giraffe")) == ([], [said])


def test_rebuilding_gives_the_same_table_from_the_catalogue(index: Index) -> None:
    index.store("Häuser am Meer", language="de")
    index.store("running meetings", "東京", language="en")
    before = [index.search(query) for query in ("haus", "run", "東京", '"am meer"')]
    with index.database.write() as connection:
        fulltext.add(connection, [(999, "haus run", "en")])
        fulltext.rebuild(connection)
    assert all(before)
    assert [index.search(query) for query in ("haus", "run", "東京", '"am meer"')] == before


def test_two_archives_in_one_process_do_not_share_what_they_count(
    index: Index, catalogues: Catalogues, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with catalogues.database(tmp_path / "other") as database:
        other = Index(database)
        rare = _frequent(index, monkeypatch)
        ids = other.store("common sense", *["two three four"] * 30)
        assert sorted(index.find("one two three four common")) == rare
        assert ids[0] in other.find("one two three four common")


# Ranking


@given(
    st.lists(st.lists(st.integers(1, 30), max_size=40), min_size=1, max_size=5),
    st.integers(1, 100),
    st.floats(1, 5000),
)
def test_bm25_is_the_published_formula(occurrences: list[list[int]], total: int, length: float) -> None:
    lists = [bm25.Postings.of(np.array(ids, np.int64)) for ids in occurrences]
    ids = np.arange(1, 31)
    expected = [
        sum(
            math.log(1 + (max(total, len(set(o))) - len(set(o)) + 0.5) / (len(set(o)) + 0.5))
            * o.count(id_)
            * 2.2
            / (o.count(id_) + 1.2 * (0.25 + 0.75 * length / bm25.TYPICAL_LENGTH))
            for o in occurrences
        )
        for id_ in ids.tolist()
    ]
    assert bm25.score(lists, total, ids, np.full(30, length)) == pytest.approx(expected)
    found, scores = bm25.outline(lists, total)
    assert found.tolist() == sorted(set().union(*occurrences))
    assert scores == pytest.approx(bm25.score(lists, total, found, np.full(len(found), bm25.TYPICAL_LENGTH)))


@given(st.text())
def test_a_query_is_bounded(text: str) -> None:
    query = query_text.parse(text * 50, {"en", "de"})
    assert max(map(len, (query.words, query.required, query.excluded))) <= query_text.MAX_PARTS
