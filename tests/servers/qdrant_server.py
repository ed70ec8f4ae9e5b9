"""The part of Qdrant's documented REST API that the index uses, over the client's own local twin of the server.

No Qdrant server comes from a package registry. This lets the client talk real HTTP, with the documented routes, bodies
and error codes; what finds the neighbours is `qdrant_client`'s local mode. It says nothing about a server's own ANN.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models


class QdrantServer(ThreadingHTTPServer):
    """Collections in memory."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.client = QdrantClient(":memory:")
        self.lock = threading.Lock()
        self.indexed: dict[str, set[str]] = {}

    @property
    def url(self) -> str:
        return f"qdrant+http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: QdrantServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        parts = urlsplit(self.path).path.strip("/").split("/")
        with self.server.lock:
            status, result = self.route(self.command, parts, body)
        data = {"time": 0.0, "status": "ok" if status == 200 else {"error": result}, "result": result}
        payload = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_PUT = do_POST = do_DELETE = answer

    def route(self, method: str, parts: list[str], body: dict[str, Any]) -> tuple[int, Any]:
        client, name = self.server.client, parts[1] if len(parts) > 1 else ""
        if not name:
            return 200, client.get_collections().model_dump(mode="json")
        there = client.collection_exists(name)
        if parts[2:] == ["exists"]:
            return 200, {"exists": there}
        if method == "PUT" and len(parts) == 2:
            return self.create(name, there, body)
        if not there:
            return 404, f"Not found: Collection `{name}` doesn't exist!"
        verb = "/".join([method, *parts[2:]])
        return 200, getattr(self, VERBS[verb])(name, body)

    def create(self, name: str, there: bool, body: dict[str, Any]) -> tuple[int, Any]:
        if there:
            return 409, f"Wrong input: Collection `{name}` already exists!"
        config = models.VectorParams.model_validate(body["vectors"])
        self.server.client.create_collection(name, vectors_config=config, metadata=body.get("metadata"))
        return 200, True

    def info(self, name: str, body: dict[str, Any]) -> Any:
        return self.server.client.get_collection(name).model_dump(mode="json")

    def remove(self, name: str, body: dict[str, Any]) -> bool:
        return bool(self.server.client.delete_collection(name))

    def index(self, name: str, body: dict[str, Any]) -> Any:
        self.server.indexed.setdefault(name, set()).add(body["field_name"])
        return self.done()

    def upsert(self, name: str, body: dict[str, Any]) -> Any:
        self.server.client.upsert(name, models.Batch.model_validate(body["batch"]))
        return self.done()

    def delete(self, name: str, body: dict[str, Any]) -> Any:
        self.server.client.delete(name, models.PointIdsList.model_validate(body))
        return self.done()

    def count(self, name: str, body: dict[str, Any]) -> Any:
        return {"count": self.server.client.count(name, exact=True).count}

    def scroll(self, name: str, body: dict[str, Any]) -> Any:
        points, following = self.server.client.scroll(
            name, limit=body["limit"], offset=body.get("offset"), with_payload=False, with_vectors=False
        )
        return {"points": [{"id": point.id} for point in points], "next_page_offset": following}

    def query(self, name: str, body: dict[str, Any]) -> Any:
        wanted = TypeAdapter(models.Filter | None).validate_python(body.get("filter"))
        found = self.server.client.query_points(
            name, query=body["query"]["nearest"], query_filter=wanted, limit=body["limit"], with_payload=False
        )
        return found.model_dump(mode="json")

    def done(self) -> Any:
        return {"operation_id": 0, "status": "completed"}


VERBS = {
    "GET": "info",
    "DELETE": "remove",
    "PUT/index": "index",
    "PUT/points": "upsert",
    "POST/points/delete": "delete",
    "POST/points/count": "count",
    "POST/points/query": "query",
    "POST/points/scroll": "scroll",
}


@contextmanager
def running() -> Iterator[QdrantServer]:
    """A server on a free port."""
    server = QdrantServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        server.client.close()
        thread.join()
