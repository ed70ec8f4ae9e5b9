"""Transcripts as files: what is written can be read back, by us and by players; what others wrote can be read."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_storage_system.errors import InvalidInput, UnknownSpec
from audio_storage_system.formats import FORMATS, Document, find, write
from audio_storage_system.records import Segment, Word

DOCUMENT = Document(
    (
        Segment(0.0, 1.5, " Good morning.", speaker="Ann & Bob"),
        Segment(3661.0625, 3662.9996, "a < b --> c\n\nsecond line", (Word(3661.1, 3661.5, " a", 0.5),)),
    ),
    language="en",
    duration=3670.0,
)


def read(name: str, text: str) -> list[Segment]:
    reader = find(name).read
    assert reader is not None
    return reader(text)


def described(segments: list[Segment]) -> list[tuple[float, float, str | None, str]]:
    return [(segment.start, segment.end, segment.speaker, segment.text) for segment in segments]


class TestWriting:
    def test_srt(self) -> None:
        assert write("srt", DOCUMENT) == (
            "1\n00:00:00,000 --> 00:00:01,500\n[Ann & Bob]: Good morning.\n\n"
            "2\n01:01:01,062 --> 01:01:03,000\na < b -> c\nsecond line\n"
        )

    def test_vtt(self) -> None:
        assert write("vtt", DOCUMENT) == (
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\n<v Ann &amp; Bob>Good morning.\n\n"
            "01:01:01.062 --> 01:01:03.000\na &lt; b --&gt; c\nsecond line\n"
        )

    def test_tsv(self) -> None:
        assert write("tsv", DOCUMENT) == (
            "start\tend\ttext\n0\t1500\t[Ann & Bob]: Good morning.\n3661062\t3663000\ta < b --> c second line\n"
        )

    def test_txt(self) -> None:
        assert write("txt", DOCUMENT) == "[Ann & Bob]: Good morning.\na < b --> c second line\n"

    def test_json(self) -> None:
        data = json.loads(write("json", DOCUMENT))
        assert data["text"] == "Good morning. a < b --> c second line"
        assert (data["language"], data["duration"]) == ("en", 3670.0)
        assert data["segments"][0] == {
            "id": 0, "start": 0.0, "end": 1.5, "text": " Good morning.", "speaker": "Ann & Bob"
        }  # fmt: skip
        assert data["segments"][1]["words"] == [{"word": " a", "start": 3661.1, "end": 3661.5, "probability": 0.5}]

    def test_a_document_in_which_nothing_was_said(self) -> None:
        written = {name: write(name, Document(())) for name in FORMATS}
        assert (written["srt"], written["vtt"], written["txt"]) == ("", "WEBVTT\n", "")
        assert all(read(name, text) == [] for name, text in written.items() if name != "txt")

    def test_a_recording_of_more_than_99_hours(self) -> None:
        long = Document((Segment(360_000.5, 360_001, "still here"),))
        assert "100:00:00,500 -->" in write("srt", long)
        assert read("vtt", write("vtt", long)) == list(long.segments)

    def test_cues_are_in_order_of_time(self) -> None:
        late, early = Segment(5, 6, "late"), Segment(1, 9, "early")
        for name in ("srt", "vtt", "tsv", "json"):
            assert read(name, write(name, Document((late, early)))) == [early, late]

    def test_an_unknown_format_says_what_exists(self) -> None:
        with pytest.raises(UnknownSpec, match="srt, vtt, txt, tsv, json"):
            write("docx", DOCUMENT)


# --- round trips -----------------------------------------------------------------------------------------------------

seconds = st.floats(0, 200_000)
any_text = st.text(max_size=40) | st.text(st.sampled_from("-<>&[]: \n\r\t{}\\/12v\u2028\x00\x85,.bi"), max_size=30)
word = st.text(st.sampled_from("abzÄß字,.!?'-09"), min_size=1, max_size=6)
line = st.lists(word, min_size=1, max_size=3).map(" ".join)
spoken_text = st.lists(line, min_size=1, max_size=2).map("\n".join)


@st.composite
def documents(draw: st.DrawFn, text: st.SearchStrategy[str] = any_text) -> Document:
    speakers = st.none() | text
    segment = st.builds(Segment, seconds, seconds, text, speaker=speakers, confidence=st.none() | st.floats(0, 1))
    return Document(tuple(draw(st.lists(segment, max_size=6))))


def in_order(document: Document) -> list[Segment]:
    return sorted(document.segments, key=lambda segment: round(segment.start * 1000))


@pytest.mark.parametrize("name", ["srt", "vtt", "tsv", "json"])
class TestRoundTrips:
    @given(document=documents())
    def test_whatever_the_text_writing_what_was_read_gives_the_same_file(self, name: str, document: Document) -> None:
        written = write(name, document)
        segments = read(name, written)
        again = replace(document, segments=tuple(segments))
        assert write(name, again) == written

    @given(document=documents())
    def test_times_come_back_to_the_millisecond_and_never_run_backwards(self, name: str, document: Document) -> None:
        keeps_empty = name in ("tsv", "json")
        shown = [s for s in in_order(document) if keeps_empty or visible(s.text)]
        segments = read(name, write(name, document))
        starts = [round(segment.start * 1000) for segment in segments]
        assert starts == [round(segment.start * 1000) for segment in shown] == sorted(starts)
        ends = [round(segment.end * 1000) for segment in segments]
        assert ends == [max(round(s.start * 1000), round(s.end * 1000)) for s in shown]

    @given(document=documents(spoken_text))
    def test_what_people_say_comes_back_word_for_word(self, name: str, document: Document) -> None:
        expected = [(s.speaker, s.text) for s in in_order(document)]
        if name != "json":  # a name is one line; so is a text in a row of a table
            expected = [(speaker and speaker.replace("\n", " "), text) for speaker, text in expected]
        if name == "tsv":
            expected = [(speaker, text.replace("\n", " ")) for speaker, text in expected]
        assert [(s.speaker, s.text) for s in read(name, write(name, document))] == expected


def visible(text: str) -> bool:
    return bool(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]|\s", "", text))


@given(text=any_text, speaker=any_text)
def test_vtt_keeps_every_visible_character_of_a_text_and_a_name(text: str, speaker: str) -> None:
    segments = read("vtt", write("vtt", Document((Segment(0, 1, text, speaker=speaker),))))
    if visible(text):
        (segment,) = segments
        assert glyphs(segment.text) == glyphs(text)
        assert glyphs(segment.speaker or "") == glyphs(speaker)


def glyphs(text: str) -> str:
    return "".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]|\s", " ", text).split())


@given(text=st.text(max_size=60))
def test_json_keeps_texts_exactly(text: str) -> None:
    segment = Segment(0, 1, text, (Word(0, 1, text, 0.25),), text, confidence=0.5, avg_logprob=-1.25)
    assert read("json", write("json", Document((segment,)))) == [segment]


@given(document=documents())
def test_a_text_never_adds_a_cue_or_a_line_of_its_own(document: Document) -> None:
    srt, vtt, tsv = (write(name, document) for name in ("srt", "vtt", "tsv"))
    cues = [segment for segment in document.segments if visible(segment.text)]
    assert srt.count("-->") == vtt.count("-->") == len(cues)
    assert len(re.findall(r"^\d+\n\d\d:", srt, re.MULTILINE)) == len(cues)
    assert all(row.count("\t") == 2 for row in tsv.splitlines())
    assert len(tsv.splitlines()) == len(document.segments) + 1


@pytest.mark.parametrize("name", ["srt", "vtt", "tsv", "json"])
@given(text=any_text | st.text(st.sampled_from('0123:,.->\n\t <v>{}[]"'), max_size=80))
def test_no_text_makes_a_reader_fail_in_another_way_than_invalid_input(name: str, text: str) -> None:
    try:
        segments = read(name, text)
    except InvalidInput:
        return
    assert all(0 <= segment.start <= segment.end for segment in segments)


# --- what others write -----------------------------------------------------------------------------------------------


class TestReadingSubRip:
    @pytest.mark.parametrize(
        "text",
        [
            "1\n00:00:01,000 --> 00:00:02,500\nHello\nthere\n\n2\n00:00:03,000 --> 00:00:04,000\n42\n",
            "\ufeff1\r\n00:00:01,000 --> 00:00:02,500\r\nHello\r\nthere\r\n\r\n2\r\n00:00:03,000-->00:00:04,000\r\n42",
            "1\r00:00:01,000 --> 00:00:02,500\rHello\rthere\r\r2\r00:00:03,000 --> 00:00:04,000\r42\r",
            "1\n00:01.000 --> 00:02.5\nHello\nthere\n\n2\n00:03 --> 00:04\n42",
            "00:00:01,000-->00:00:02,500\nHello\nthere\n\n00:00:03,000   -->  00:00:04,000\n42",
            "1\n0:00:01,000 --> 0:00:02,500 X:9\n<i>Hello</i>\n<font x=y>there\n\n\n2\n0:0:3,0 --> 0:0:4\n{\\an8}<b>42",
            "1\n00:00:01,000 --> 00:00:02,500\nHello\n\n\nthere\n\n2\n00:00:03,000 --> 00:00:04,000\n42\n\n",
            "1\n00:00:01,000 --> 00:00:02,500\nHello\nthere\n2\n00:00:03,000 --> 00:00:04,000\n42",
        ],
        ids=["plain", "windows", "old mac", "short times", "no numbers", "tags", "blank lines", "no blank lines"],
    )  # fmt: skip
    def test_all_these_say_the_same(self, text: str) -> None:
        assert described(read("srt", text)) == [(1.0, 2.5, None, "Hello\nthere"), (3.0, 4.0, None, "42")]

    def test_speakers_in_whisperx_style(self) -> None:
        text = "1\n00:00:01,000 --> 00:00:02,000\n[SPEAKER_00]: Hello\n"
        assert described(read("srt", text)) == [(1.0, 2.0, "SPEAKER_00", "Hello")]

    def test_a_text_that_only_looks_like_it_has_a_speaker_gains_none(self) -> None:
        text = write("srt", Document((Segment(0, 1, "[Music]: la la"),)))
        assert described(read("srt", text)) == [(0.0, 1.0, None, "[Music] : la la")]


class TestReadingWebVtt:
    def test_headers_comments_styles_identifiers_and_settings_are_not_text(self) -> None:
        text = (
            "\ufeffWEBVTT - a title\nKind: captions\n\nSTYLE\n::cue { color: red }\n\nNOTE a comment\non two lines\n\n"
            "intro\n00:01.000 --> 00:02.000 align:start position:0%\n<c.yellow>Hello</c> <00:00:01.500><b>you</b>\n\n"
            "NOTE\nbetween cues\n\ncue 2\n01:00:03.000 --> 01:00:04.000\n- a &amp; b &lt;c&gt;\n\nNOTE the end"
        )
        assert described(read("vtt", text)) == [(1.0, 2.0, None, "Hello you"), (3603.0, 3604.0, None, "- a & b <c>")]

    def test_several_voices_in_one_cue_are_several_segments(self) -> None:
        text = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>Hi!</v>\n<v.loud Bob O&apos;Neil>Hello.</v>\n"
        assert described(read("vtt", text)) == [(1.0, 2.0, "Ann", "Hi!"), (1.0, 2.0, "Bob O'Neil", "Hello.")]

    def test_a_name_that_ends_in_dashes_makes_no_arrow(self) -> None:
        segment = Segment(0, 1, "hi", speaker="Ann--")
        assert write("vtt", Document((segment,))).count("-->") == 1
        assert read("vtt", write("vtt", Document((segment,)))) == [segment]

    def test_a_first_line_of_text_may_be_note(self) -> None:
        segment = Segment(0, 1, "NOTE\nthis")
        assert read("vtt", write("vtt", Document((segment, segment)))) == [segment, segment]


class TestReadingTsvAndJson:
    @pytest.mark.parametrize("text", ["start\tend\ttext\n0\t1500\thi\n", "0\t1500\thi", "\ufeff0\t1500.0\thi\r\n\r\n"])
    def test_tsv_with_and_without_heading(self, text: str) -> None:
        assert described(read("tsv", text)) == [(0.0, 1.5, None, "hi")]

    def test_whispers_own_json(self) -> None:
        text = json.dumps({
            "text": " Hi you", "language": "en",
            "segments": [{
                "id": 0, "seek": 0, "start": 0.0, "end": 1.0, "text": " Hi you", "tokens": [1], "temperature": 0.0,
                "avg_logprob": float("nan"), "compression_ratio": 0.8, "no_speech_prob": 0.01,
                "words": [{"word": " Hi", "start": 0.0, "end": 0.4, "probability": 0.9}],
            }],
        })  # fmt: skip
        (segment,) = read("json", text)
        assert segment.words == (Word(0.0, 0.4, " Hi", 0.9),)
        assert (segment.avg_logprob, segment.compression_ratio, segment.no_speech_prob) == (None, 0.8, 0.01)

    def test_verbose_json_with_its_words_beside_the_segments(self) -> None:
        words = [{"word": w, "start": t, "end": t + 0.5} for w, t in (("one", 0.0), ("two", 1.0), ("three", 1.5))]
        segments = [{"id": 0, "start": 0.0, "end": 1.0, "text": "one"}, {"id": 1, "start": 1, "end": 2, "text": "t t"}]
        found = read("json", json.dumps({"task": "transcribe", "segments": segments, "words": words}))
        assert [[word.text for word in segment.words] for segment in found] == [["one"], ["two", "three"]]

    def test_whisperx_json_with_speakers_and_a_word_without_times(self) -> None:
        words = [{"word": "in"}, {"word": "time", "start": 0.5, "end": 0.9, "score": 0.7, "speaker": "SPEAKER_01"}]
        item = {"start": 0.1, "end": 1.0, "text": "in time", "speaker": "SPEAKER_01", "words": words}
        (segment,) = read("json", json.dumps({"segments": [item]}))
        assert segment == Segment(0.1, 1.0, "in time", (Word(0.5, 0.9, "time", 0.7),), "SPEAKER_01")


@pytest.mark.parametrize("name", ["srt", "vtt", "tsv", "json"])
@pytest.mark.parametrize(
    "text", ["hello", "<html></html>", "[1, 2]", '{"segments": [{"start": 1e999}]}', "[" * 100_000]
)
def test_what_is_no_transcript_is_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidInput):
        read(name, text)
