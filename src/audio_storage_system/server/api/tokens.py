"""Tokens of the API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import Field

from audio_storage_system.server import problems
from audio_storage_system.server.api.shapes import Answer, Asked, Page, number_in, page
from audio_storage_system.server.fields import Cursor, Id, Limit, Name, Text, Until
from audio_storage_system.server.gate import Caller

router = APIRouter(tags=["tokens"], responses=problems.documented())
Scope = Literal["read", "write", "admin"]


class Token(Answer):
    """What is known of a token, which is not the token itself."""

    token_id: int
    principal: str = Field(examples=["anna"])
    name: str = Field(examples=["the newsroom's importer"])
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class CreatedToken(Token):
    """A token that was just made."""

    secret: str = Field(description="The token. It is nowhere else, and is not shown again.", examples=["ast_…"])


class NewToken(Asked):
    """A token to make."""

    principal: Name | None = Field(default=None, description="Whose; default who asks.", examples=[None, "anna"])
    name: Annotated[Text, Field(max_length=255, examples=["the newsroom's importer"])] = ""
    scopes: list[Scope] = Field(default=["read"], min_length=1, max_length=3)
    expires_at: Until | None = Field(default=None, examples=[None, "2030-01-01T00:00:00+00:00"])


@router.get("/tokens", summary="The tokens that there are")
def list_tokens(
    storage: Caller, principal: Name | None = None, limit: Limit = 100, cursor: Cursor = None
) -> Page[Token]:
    """The oldest first, revoked and expired ones too: for administrators everybody's, for others their own."""
    found = storage.tokens.list(principal, limit=limit + 1, after=number_in(cursor))
    shown, following = page(found, limit, lambda one: str(one.id))
    return Page(items=[Token.of(one) for one in shown], next_cursor=following)


@router.post("/tokens", status_code=201, summary="Make a token", responses=problems.documented(404))
def create_token(storage: Caller, wanted: NewToken, response: Response) -> CreatedToken:
    """The answer shows the secret, once. A token allows no more than its scopes, nor than its principal may; one that
    only reads makes none. From the first token on, every request needs one."""
    response.headers["Cache-Control"] = "no-store"
    made = storage.tokens.create(wanted.principal, name=wanted.name, scopes=wanted.scopes, expires_at=wanted.expires_at)
    return CreatedToken.of(made)


@router.delete("/tokens/{token_id}", summary="Revoke a token", responses=problems.documented(404))
def revoke_token(storage: Caller, token_id: Id) -> Token:
    """It is accepted no longer, from now on."""
    return Token.of(storage.tokens.revoke(token_id))
