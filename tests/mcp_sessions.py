"""The official MCP client, for tests: sessions over standard input and output of a real process, and over HTTP."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx2
import jsonschema
import mcp_types as types
from anyio.from_thread import BlockingPortal
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from serving import as_bearer

TIMEOUT = 60.0


@dataclass
class Session:
    """A client that is connected, used from ordinary functions."""

    portal: BlockingPortal
    client: Client
    _schemas: dict[str, Any] = field(default_factory=dict)

    def do(self, method: Callable[..., Any], *given: Any, **further: Any) -> Any:
        """Call a method of the client."""
        return self.portal.call(lambda: method(*given, **further))

    def tools(self) -> dict[str, types.Tool]:
        """The tools that are listed, by name."""
        return {tool.name: tool for tool in self.do(self.client.list_tools).tools}

    def call(self, tool: str, **arguments: Any) -> types.CallToolResult:
        """What a call is answered, whatever it is."""
        answer = self.do(self.client.call_tool, tool, arguments)
        assert isinstance(answer, types.CallToolResult)
        return answer

    def ask(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The structure that a call is answered, which is the same as text, and as the tool's schema says."""
        answer = self.call(tool, **arguments)
        assert not answer.is_error, answer.content
        [content] = answer.content
        assert isinstance(content, types.TextContent)
        assert json.loads(content.text) == answer.structured_content
        jsonschema.Draft202012Validator(self._schema_of(tool)).validate(answer.structured_content)
        found: dict[str, Any] = answer.structured_content
        return found

    def refused(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The error of ours that a call is answered."""
        answer = self.call(tool, **arguments)
        assert answer.is_error and answer.structured_content is None
        [content] = answer.content
        assert isinstance(content, types.TextContent)
        error: dict[str, Any] = json.loads(content.text)["error"]
        return error

    def pages(self, tool: str, what: str, **arguments: Any) -> Iterator[list[dict[str, Any]]]:
        """Page after page of an answer."""
        page = self.ask(tool, **arguments)
        yield page[what]
        while "next_cursor" in page:
            page = self.ask(tool, **arguments, cursor=page["next_cursor"])
            yield page[what]

    def read(self, uri: str) -> str:
        """The text of a resource."""
        [content] = self.do(self.client.read_resource, uri).contents
        assert isinstance(content, types.TextResourceContents) and content.uri == uri
        return content.text

    def _schema_of(self, tool: str) -> Any:
        if tool not in self._schemas:
            self._schemas = {name: listed.output_schema for name, listed in self.tools().items()}
        return self._schemas[tool]


@contextmanager
def connected(transport: Any, mode: str = "legacy") -> Iterator[Session]:
    """A session over this. mode: `legacy` begins with a handshake, `auto` finds out what the server speaks."""
    with anyio.from_thread.start_blocking_portal() as portal:
        client = Client(transport, mode=mode, read_timeout_seconds=TIMEOUT)
        with portal.wrap_async_context_manager(client):
            yield Session(portal, client)


def program(home: Path, *options: str, **environment: str) -> StdioServerParameters:
    """The command `mcp` over an archive, as clients start it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUDIO_STORAGE_")}
    arguments = ["-m", "audio_storage_system.cli", "mcp", "--archive", str(home), *options]
    return StdioServerParameters(command=sys.executable, args=arguments, env={**kept, **environment})


@contextmanager
def over_http(url: str, secret: str | None = None, mode: str = "legacy") -> Iterator[Session]:
    """A session with a server, with this token."""
    with ExitStack() as kept:
        portal = kept.enter_context(anyio.from_thread.start_blocking_portal())
        headers = as_bearer(secret) if secret else {}
        http = kept.enter_context(
            portal.wrap_async_context_manager(httpx2.AsyncClient(headers=headers, timeout=TIMEOUT))
        )
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        client = Client(transport, mode=mode, read_timeout_seconds=TIMEOUT)
        yield Session(portal, kept.enter_context(portal.wrap_async_context_manager(client)))


def names(found: Sequence[Any]) -> list[str]:
    """The names of tools, in order."""
    return [one.name for one in found]
