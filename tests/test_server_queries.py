"""Parameters in queries: what each operation takes, asked by several threads at once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Query
from fastapi.routing import APIRoute
from pydantic import create_model

from audio_storage_system.server.queries import _parameters

THREADS, ROUNDS = 4, 60


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def route_of(number: int) -> APIRoute:
    """An operation with a model of parameters that nobody has seen before."""
    model = create_model(f"Asked{number}", limit=(int, 10), tag=(list[str], []))
    app = FastAPI()

    def asked(given: Any) -> None:
        """Nothing."""

    asked.__annotations__["given"] = Annotated[model, Query()]
    app.get("/asked")(asked)
    return next(route for route in app.routes if isinstance(route, APIRoute))


def test_threads_that_ask_for_the_first_time_at_once_all_get_the_answer(hasty: None) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for number in range(ROUNDS):
            route, together = route_of(number), threading.Barrier(THREADS)

            def ask(route: APIRoute = route, together: threading.Barrier = together) -> object:
                together.wait(60)
                return _parameters(route)

            asking = [pool.submit(ask) for _ in range(THREADS)]
            assert [one.result(60) for one in asking] == [{"limit": False, "tag": True}] * THREADS
