"""The tools: what each is called, told about, takes and answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import mcp_types as types

from audio_storage_system.server.mcp import answers, arguments, finding, reading, writing
from audio_storage_system.server.mcp.answers import Answer
from audio_storage_system.server.mcp.arguments import Arguments
from audio_storage_system.server.mcp.caller import Caller
from audio_storage_system.server.mcp.schemas import schema_of

Given = TypeVar("Given", bound=Arguments)


@dataclass(frozen=True)
class ArchiveTool(Generic[Given]):
    """A tool. writes: it changes the archive, and is there only for who may. reads_files: it is there only where the
    server may read files. destroys: it can replace or take away what was there. repeatable: called again with the same
    arguments, it changes nothing more."""

    name: str
    title: str
    description: str
    takes: type[Given]
    answers: type[Answer]
    run: Callable[[Caller, Given], Answer]
    writes: bool = False
    reads_files: bool = False
    destroys: bool = False
    repeatable: bool = True

    def is_for(self, caller: Caller) -> bool:
        """Whether it is there for this caller."""
        return (caller.may_write or not self.writes) and (bool(caller.folders) or not self.reads_files)

    def call(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """Its answer. Raises `pydantic.ValidationError` for what it does not take, and the errors of the archive."""
        return self.run(caller, self.takes.model_validate(given)).as_dict()

    def described(self) -> types.Tool:
        """As the protocol lists it."""
        hints = types.ToolAnnotations(
            title=self.title,
            read_only_hint=not self.writes,
            destructive_hint=self.destroys,
            idempotent_hint=self.repeatable,
            open_world_hint=False,
        )
        return types.Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=schema_of(self.takes),
            output_schema=schema_of(self.answers, of_answers=True),
            annotations=hints,
        )


TOOLS: tuple[ArchiveTool[Any], ...] = (
    ArchiveTool(
        "search_audio",
        "Search what was said",
        "Find the places in recordings where something was said, by meaning and by words. Each result names the "
        "recording, the seconds, the clock time, the speaker and how to cite it. Read around a result with "
        "get_transcript (start, end). To answer a question from many places at once, use get_context.",
        arguments.SearchAudio,
        answers.SearchAnswer,
        finding.search_audio,
    ),
    ArchiveTool(
        "get_context",
        "Get passages for a question",
        "Get the best passages for a question as one text within a budget of tokens, each with a numbered source. Cite "
        "these numbers, or the sources' names and times, in the answer.",
        arguments.GetContext,
        answers.ContextAnswer,
        finding.get_context,
    ),
    ArchiveTool(
        "get_transcript",
        "Read a transcript",
        "Read what is said in a recording, or in some seconds of it, in pages of segments with times and speakers.",
        arguments.GetTranscript,
        answers.TranscriptAnswer,
        reading.get_transcript,
    ),
    ArchiveTool(
        "list_recordings",
        "List recordings",
        "List recordings, the latest first, with their times, lengths and metadata, in pages; all of them, or those "
        "that meet conditions.",
        arguments.ListRecordings,
        answers.ListAnswer,
        finding.list_recordings,
    ),
    ArchiveTool(
        "get_recording",
        "Show a recording",
        "Show what is known of a recording: when it was recorded, its length and format, its metadata, its notes "
        "(under the metadata key notes), and the versions of its transcript.",
        arguments.GetRecording,
        answers.RecordingAnswer,
        reading.get_recording,
    ),
    ArchiveTool(
        "add_note",
        "Add a note to a recording",
        "Add a note to a recording. Notes that are there stay as they are.",
        arguments.AddNote,
        answers.NoteAnswer,
        writing.add_note,
        writes=True,
        repeatable=False,
    ),
    ArchiveTool(
        "set_metadata",
        "Change the metadata of a recording",
        "Set metadata keys of a recording, and take keys away; others stay as they are. What a key was before stays in "
        "the recording's history.",
        arguments.SetMetadata,
        answers.MetadataAnswer,
        writing.set_metadata,
        writes=True,
        destroys=True,
    ),
    ArchiveTool(
        "transcribe_file",
        "Store and transcribe a file",
        "Store an audio or video file of the server's machine in the archive and transcribe it; what is said in it can "
        "be searched from then on. The same file again is not stored twice. It takes from seconds to minutes; where it "
        "stops with deadline_exceeded, call it again to go on.",
        arguments.TranscribeFile,
        answers.TranscribedAnswer,
        writing.transcribe_file,
        writes=True,
        reads_files=True,
    ),
)


@cache
def _described(tool: ArchiveTool[Any]) -> types.Tool:
    return tool.described()


def listed(caller: Caller) -> list[types.Tool]:
    """The tools that are there for this caller, as the protocol lists them."""
    return [_described(tool) for tool in TOOLS if tool.is_for(caller)]


def find(caller: Caller, name: str) -> ArchiveTool[Any] | None:
    """The tool with this name, where it is there for this caller."""
    return next((tool for tool in TOOLS if tool.name == name and tool.is_for(caller)), None)
