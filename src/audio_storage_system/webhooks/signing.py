"""What a call says, and the proof that it comes from this archive.

Each call is signed twice with the webhook's secret, so that receivers of either kind take it: as Standard Webhooks 1.0
(https://www.standardwebhooks.com) has it, over id, time and body, and as GitHub, Speakr and others have it, over the
body alone.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from collections.abc import Mapping
from typing import Any

PREFIX, SECRET_BYTES = "whsec_", 32
USER_AGENT = "audio-storage-webhooks/1"


def new_secret() -> str:
    """A random secret: `whsec_` and 32 bytes in base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def body_of(payload: Mapping[str, Any]) -> bytes:
    """The same bytes for the same payload."""
    return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def headers_of(secret: str, delivery_id: str, event: str, at: int, body: bytes) -> dict[str, str]:
    """The headers of a call that is made at this time, in seconds since 1970."""
    return {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "Webhook-Id": delivery_id,
        "Webhook-Timestamp": str(at),
        "Webhook-Signature": standard_signature(secret, delivery_id, at, body),
        "X-Audio-Storage-Event": event,
        "X-Audio-Storage-Delivery": delivery_id,
        "X-Audio-Storage-Timestamp": str(at),
        "X-Audio-Storage-Signature": body_signature(secret, body),
    }


def standard_signature(secret: str, delivery_id: str, at: int, body: bytes) -> str:
    """`v1,` and HMAC-SHA256 in base64 over `id.time.body`, with the 32 bytes of the secret as key."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = f"{delivery_id}.{at}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def body_signature(secret: str, body: bytes) -> str:
    """`sha256=` and HMAC-SHA256 in hexadecimal over the body, with the secret as it is shown as key."""
    return "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex()
