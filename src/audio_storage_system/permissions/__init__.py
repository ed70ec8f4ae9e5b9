"""Who there is, what they may, and what they prove themselves with: the boards of users, grants and tokens."""

from audio_storage_system.permissions.grants import Grant, Grants
from audio_storage_system.permissions.tokens import NewToken, Scope, Token, Tokens, allowed
from audio_storage_system.permissions.users import Users

__all__ = ["Grant", "Grants", "NewToken", "Scope", "Token", "Tokens", "Users", "allowed"]
