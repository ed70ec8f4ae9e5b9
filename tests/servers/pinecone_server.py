"""A small Pinecone on this machine, built from its documented data-plane API: what the official client needs of it.

Reads lag behind writes by a moment, as the service's may, and say how far they are.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

KEY = "secret-of-the-test"
LAG_SECONDS = 0.02
PAGE = 100


class PineconeServer(ThreadingHTTPServer):
    """Namespaces of records. Writes are applied by the first request `LAG_SECONDS` later."""

    daemon_threads = True

    def __init__(self, dimension: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.dimension = dimension
        self.namespaces: dict[str, dict[str, dict[str, Any]]] = {}
        self.waiting: list[tuple[float, Any]] = []
        self.committed = self.reconciled = 0
        self.lock = threading.Lock()
        self.requests: list[tuple[str, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def write(self, change: Any) -> int:
        self.committed += 1
        self.waiting.append((time.monotonic() + LAG_SECONDS, change))
        return self.committed

    def settle(self) -> None:
        while self.waiting and self.waiting[0][0] <= time.monotonic():
            self.waiting.pop(0)[1]()
            self.reconciled += 1


class Handler(BaseHTTPRequestHandler):
    server: PineconeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        self.answer(json.loads(self.rfile.read(length) or b"{}"))

    def do_GET(self) -> None:
        self.answer({})

    do_DELETE = do_GET

    def answer(self, body: dict[str, Any]) -> None:
        server, path = self.server, urlsplit(self.path).path
        if self.headers.get("api-key") != KEY:
            self.reply(401, {"error": {"code": "UNAUTHENTICATED", "message": "Invalid API Key"}, "status": 401})
            return
        with server.lock:
            server.requests.append((path, body))
            server.settle()
            if self.command == "DELETE":
                self.delete_namespace(unquote(path.removeprefix("/namespaces/")))
            else:
                getattr(self, path.strip("/").replace("/", "_"))(body)

    def reply(self, status: int, data: dict[str, Any], **headers: Any) -> None:
        payload = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        for name, value in headers.items():
            self.send_header(f"x-pinecone-{name.replace('_', '-')}", str(value))
        self.end_headers()
        self.wfile.write(payload)

    def vectors_upsert(self, body: dict[str, Any]) -> None:
        rows = {row["id"]: row for row in body["vectors"]}
        if any(len(row["values"]) != self.server.dimension for row in rows.values()):
            self.reply(400, {"code": 3, "message": "Vector dimension does not match the dimension of the index"})
            return
        name = body.get("namespace", "")
        lsn = self.server.write(lambda: self.server.namespaces.setdefault(name, {}).update(rows))
        self.reply(200, {"upsertedCount": len(rows)}, lsn_committed=lsn)

    def vectors_delete(self, body: dict[str, Any]) -> None:
        there = self.server.namespaces.get(body.get("namespace", ""), {})
        lsn = self.server.write(lambda: [there.pop(id_, None) for id_ in body["ids"]])
        self.reply(200, {}, lsn_committed=lsn)

    def vectors_fetch(self, body: dict[str, Any]) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        name = asked.get("namespace", [""])[0]
        there = self.server.namespaces.get(name, {})
        found = {id_: there[id_] for id_ in asked.get("ids", []) if id_ in there}
        self.reply(200, {"vectors": found, "namespace": name})

    def vectors_list(self, body: dict[str, Any]) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        name, after = asked.get("namespace", [""])[0], asked.get("paginationToken", [""])[0]
        ids = sorted(id_ for id_ in self.server.namespaces.get(name, {}) if id_ > after)
        page, more = ids[:PAGE], len(ids) > PAGE
        answer: dict[str, Any] = {"vectors": [{"id": id_} for id_ in page], "namespace": name}
        self.reply(200, {**answer, "pagination": {"next": page[-1]}} if more else answer)

    def query(self, body: dict[str, Any]) -> None:
        there = self.server.namespaces.get(body.get("namespace", ""), {})
        inside = [row for row in there.values() if holds(row.get("metadata", {}), body.get("filter"))]
        vector = np.array(body["vector"])
        scored = [{"id": row["id"], "score": cosine(np.array(row["values"]), vector), "values": []} for row in inside]
        scored.sort(key=lambda match: -match["score"])
        answer = {"matches": scored[: body["topK"]], "namespace": body.get("namespace", "")}
        self.reply(200, answer, lsn_reconciled=self.server.reconciled)

    def describe_index_stats(self, body: dict[str, Any]) -> None:
        counts = {name: {"vectorCount": len(rows)} for name, rows in self.server.namespaces.items() if rows}
        total = sum(one["vectorCount"] for one in counts.values())
        stats = {"dimension": self.server.dimension, "indexFullness": 0, "totalVectorCount": total}
        self.reply(200, {**stats, "namespaces": counts, "metric": "cosine", "vectorType": "dense"})

    def delete_namespace(self, name: str) -> None:
        if self.server.namespaces.pop(name, None) is None:
            self.reply(404, {"code": 5, "message": "Namespace not found"})
        else:
            self.reply(200, {})


def cosine(one: Any, other: Any) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def holds(metadata: dict[str, Any], condition: dict[str, Any] | None) -> bool:
    """Whether a record passes: `$and` of `{field: {$in|$gte|$lt: operand}}`."""
    tests = {"$in": lambda a, b: a in b, "$gte": lambda a, b: a >= b, "$lt": lambda a, b: a < b}
    return all(
        tests[name](metadata[key], operand)
        for part in (condition or {"$and": []})["$and"]
        for key, wanted in part.items()
        for name, operand in wanted.items()
    )


@contextmanager
def running(dimension: int) -> Iterator[PineconeServer]:
    """A server on a free port."""
    server = PineconeServer(dimension)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
