"""The examples and the documentation run: every Python block, every command, every link."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from audio_storage_system import AudioStorageSystem
from audio_storage_system.cli import app

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
# The guide's own lines, as far as they do not name files or a model of the reader's.
GUIDE = {
    "guide_basic.py": """
        from audio_storage_system import AudioStorageSystem
        storage = AudioStorageSystem(storage_backend="sqlite")
        audio_id = storage.record_and_store_audio(
            generate_embeddings=True,
            metadata={"user": "john", "session": "meeting_1"},
        results = storage.search_similar_audio("meeting discussion", limit=5)
        for result in results:
            print(f"Similarity: {result['similarity']:.3f}")
            print(f"Transcript: {result['transcription']}")
    """,
    "guide_advanced.py": """
        def custom_text_embedding(text: str) -> np.ndarray:
            return your_embedding_model.encode(text)
        storage.generate_text_embedding = custom_text_embedding
    """,
    "guide_batch.py": """
        for file_path in audio_files:
            audio_data = load_audio(file_path)
            audio_id = storage.store_audio_file(file_path, audio_data)
            transcript_id = storage.generate_transcript(audio_id, audio_data)
            storage.generate_embeddings(audio_id, transcript_id, audio_data)
    """,
}


# The examples


def run_example(name: str, *arguments: str | Path, home: Path) -> str:
    """Run one as its reader would, with the engine that needs no download; what it printed."""
    environment = os.environ | {"AUDIO_STORAGE_HOME": str(home), "PULSE_SERVER": "unix:/nonexistent"}
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments), "--model", "pocketsphinx"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", GUIDE)
def test_an_example_is_what_the_guide_says(name: str) -> None:
    written = {line.strip() for line in (EXAMPLES / name).read_text(encoding="utf-8").splitlines()}
    assert [line for line in GUIDE[name].split("\n") if line.strip() and line.strip() not in written] == []


def test_the_basic_example_says_when_it_has_no_microphone_and_goes_on(demo: Path, tmp_path: Path) -> None:
    output = run_example("guide_basic.py", demo / "voice_note.flac", "--duration", "1", home=tmp_path / "archive")
    if "Recorded 1" in output:
        pytest.skip("this machine has a microphone, and the example has just recorded a second of it")
    assert "Not recorded. No sound can be recorded here: " in output
    assert "Added 1" in output
    assert re.search(r"Similarity: -?0\.\d{3}\nTranscript: .*doctor", output)


def test_the_advanced_example_uses_the_function_given(demo: Path, tmp_path: Path) -> None:
    output = run_example("guide_advanced.py", demo / "voice_note.flac", home=tmp_path / "archive")
    assert "1 embeddings of 512 numbers in user:__main__.custom_text_embedding" in output
    assert re.search(r"^1\.000 .*doctor", output, re.MULTILINE)


def test_the_batch_example_stores_transcribes_and_embeds_each_file(demo: Path, tmp_path: Path) -> None:
    files = [demo / "voice_note.flac", demo / "call.flac"]
    output = run_example("guide_batch.py", *files, home=tmp_path / "archive")
    assert [line.split()[:2] for line in output.splitlines()] == [["1", str(files[0])], ["2", str(files[1])]]
    with AudioStorageSystem(tmp_path / "archive", create=False) as storage:
        spaces = storage.stats()["spaces"]
        found = storage.search_similar_audio("the heating stopped working", limit=1)[0]
    assert {space["kind"]: space["embeddings"] >= 2 for space in spaces} == dict.fromkeys(
        ("transcript", "audio", "combined"), True
    )
    assert found.audio_id == 2


# The documentation


def pages() -> list[str]:
    """Every page written by hand."""
    found = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page.relative_to(ROOT).as_posix() for page in found if "reference" not in page.parts]


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", read(page), re.MULTILINE | re.DOTALL)


def test_the_readme_sets_everything_up_with_two_commands() -> None:
    commands = re.findall(r"^(?:    |\$ )(.*\bpip\b.*|.*\bapt.*|.*\bmake\b.*)$", read("README.md"), re.MULTILINE)
    assert commands == [
        "python -m pip install . && audio-storage demo",
        "python -m pip install '.[test]' && python -m pytest",
    ]


@pytest.fixture
def filled(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted_engine: object) -> Path:
    """A working folder with the demo's recordings and an archive of them, as the pages take for granted. Whatever model
    a page names, its weights are not here, and the scripted engine stands in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIO_STORAGE_TRANSCRIBER_FALLBACK", "scripted")
    shutil.copytree(demo, tmp_path / "recordings")
    with AudioStorageSystem() as storage:
        for path in sorted((tmp_path / "recordings").glob("*.flac")):
            storage.add(path, metadata={"project": "move", "week": 47}, whisper_model="scripted")
    return tmp_path


@pytest.mark.filterwarnings("default")  # a page leaves its archive open
@pytest.mark.parametrize("page", [page for page in pages() if blocks(page, "python")])
def test_the_python_of_a_page_runs_from_top_to_bottom(page: str, filled: Path, capsys: Any) -> None:
    (filled / "notes.txt").write_text("no audio")
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page, "python"):
        code = compile(block, page, "exec")
        if "record_and_store_audio" not in block:
            exec(code, names)  # noqa: S102 - our own pages
    if "storage" in names:
        names["storage"].close()


def test_the_guides_sql_runs_on_the_catalogue(filled: Path) -> None:
    (block,) = blocks("docs/internals/data-model.md", "sql")
    with AudioStorageSystem() as storage:
        storage.set_metadata(1, {"user": "john"})
    connection = sqlite3.connect(filled / "audio_storage" / "audio_storage.db")
    found = [connection.execute(query).fetchall() for query in block.split(";") if query.strip()]
    connection.close()
    assert [len(rows) for rows in found][:2] == [1, 3]
    assert {name for name, _, text in found[2] if "is spoken" in text} == {
        "call.flac", "meeting.flac", "voice_note.flac",
    }  # fmt: skip


def mentioned_commands(text: str) -> Iterator[str]:
    """Every `audio-storage …` in blocks and in the middle of a line."""
    for line in re.findall(r"^(?:    |\$ )(.+)$", text, re.MULTILINE):
        yield from (part.strip() for part in re.split(r"&&|\|\|?|;", line) if re.match(r"\s*audio-storage ", part))
    yield from re.findall(r"`(audio-storage [^`]+)`", text)


@cache
def program() -> Any:
    """The program's own parser, which is made of a hundred commands."""
    return typer.main.get_command(app)


def parse_command(line: str) -> None:
    """Have the program's own parser read a command, without running it. Raises what it would say."""
    command = program()
    _, *words = shlex.split(line, comments=True)
    if words == ["--help"]:  # which every command has
        return
    while words and hasattr(command, "commands"):
        name = words.pop(0)
        if name not in command.commands:
            raise LookupError(f"No such command: {name}")
        command = command.commands[name]
    if words:  # a command named alone is not meant to be complete
        command.make_context(command.name, words)


@pytest.mark.parametrize("page", pages())
def test_every_command_exists_with_the_options_shown(page: str) -> None:
    for line in mentioned_commands(read(page)):
        try:
            parse_command(line)
        except Exception as error:
            pytest.fail(f"{page}: {line}: {error}")


@pytest.mark.parametrize("line", ["audio-storage ad x.wav", "audio-storage add x.wav --fast", "audio-storage rm x"])
def test_a_wrong_command_is_seen(line: str) -> None:
    with pytest.raises(Exception, match=r"No such|valid integer"):
        parse_command(line)


def test_commands_are_found_wherever_they_stand() -> None:
    text = "    pip install . && audio-storage demo\n$ audio-storage add a.wav\nuse `audio-storage rm 3 --yes` or not"
    assert [*mentioned_commands(text)] == ["audio-storage demo", "audio-storage add a.wav", "audio-storage rm 3 --yes"]


@pytest.mark.parametrize("page", pages())
def test_every_option_named_alone_belongs_to_some_command(page: str) -> None:
    offered = re.findall(r"`(--[a-z/-]+)`", read("docs/reference/cli.md"))
    options = {name for names in offered for name in names.split("/")} | {"--json", "--archive"}
    if page == "docs/benchmarks.md":
        scripts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "bench").glob("*.py"))
        options |= set(re.findall(r'add_argument\("(--[a-z-]+)"', scripts))
    named = set(re.findall(r"`(--[a-z-]+)[^`]*`", read(page)))
    assert named <= options


@pytest.mark.parametrize("page", pages())
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: {target}"
        headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings}


def test_every_page_is_in_the_index() -> None:
    folders, names = ["docs", "docs/decisions"], ["index.md", "README.md"]
    indexes = [(ROOT / folder, read(f"{folder}/{name}")) for folder, name in zip(folders, names, strict=True)]
    linked = {(folder / target).resolve() for folder, text in indexes for target in re.findall(r"\]\(([^)#]+)", text)}
    found = {page.resolve() for page in (ROOT / "docs").rglob("*.md")} - {ROOT / "docs" / "index.md"}
    assert found - linked == set(), "link it in docs/index.md (a decision: in docs/decisions/README.md)"


def test_the_program_names_only_commands_that_exist() -> None:
    """In messages, help and docstrings that say what to run."""
    command: Any = typer.main.get_command(app)
    for path in (ROOT / "src").rglob("*.py"):
        named = re.findall(r"audio-storage ([a-z]+)", path.read_text(encoding="utf-8"))
        assert set(named) <= set(command.commands), path
