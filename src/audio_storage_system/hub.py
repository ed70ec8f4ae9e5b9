"""The Hugging Face hub: what it knows of a model, learned within seconds and before any download."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from audio_storage_system.errors import WeightsUnavailable

T = TypeVar("T")

SECONDS = 4.0


def model_info(repository: str, spec: str) -> Any:
    """What the hub knows of `repository`, its files with their sizes: one request without retries, which is also how
    to know that it answers.

    Raises `WeightsUnavailable` when `HF_HUB_OFFLINE` is set or the hub does not answer in time; the hub's own
    `RepositoryNotFoundError` and `HFValidationError` where it has no such repository.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    absent = f"its weights ({repository}) are not in the Hugging Face cache"
    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        raise WeightsUnavailable(spec=spec, reason=f"{absent}, and HF_HUB_OFFLINE is set")
    try:
        return within(SECONDS, lambda: HfApi().model_info(repository, files_metadata=True, timeout=SECONDS - 1))
    except (RepositoryNotFoundError, HFValidationError):
        raise
    except Exception as error:  # the hub's client raises those of its HTTP library, which differ between versions
        reason = f"{absent}, and {constants.ENDPOINT} did not give them: {first_line(error)}"
        raise WeightsUnavailable(spec=spec, reason=reason) from error


def within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns or raises, or `TimeoutError` after `seconds`.

    In a thread of its own, because a socket's time-out does not bound how long looking up a name takes.
    """
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return answers[0]


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
