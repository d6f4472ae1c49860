"""Passwords: made once, kept in files that only their reader may open, handed to no process in its arguments."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from geoloc_dagster.stack.folder import StackFolder
from geoloc_dagster.storage import translated_errors

USER = "geoloc"
ROLES = ("dagster", "mlflow")
_BYTES, _ROUNDS = 24, 4096


def make_secrets(folder: StackFolder) -> None:
    """Make what is missing: the login of the pages and the passwords of the database roles. What is there stays.

    Raises:
        DataRootError: the folder cannot be written.
    """
    with translated_errors(folder.secrets):
        folder.secrets.mkdir(parents=True, exist_ok=True)
        folder.secrets.chmod(0o700)
        if not folder.login.exists():
            write_private(folder.login, f"{USER}:{_password()}\n")
        for role in ROLES:
            if not folder.passfile(role).exists():
                write_private(folder.passfile(role), f"*:*:{role}:{role}:{_password()}\n")


def write_private(path: Path, text: str, *, owner: tuple[int, int] | None = None) -> None:
    """Write a file that only its owner may read, from its first byte on; `owner` is (uid, gid), this process's where None."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    if owner is not None:
        os.chown(temporary, *owner)
    temporary.replace(path)


def role_password(folder: StackFolder, role: str) -> str:
    """The password of a database role."""
    return folder.passfile(role).read_text().strip().rpartition(":")[2]


def login(folder: StackFolder) -> tuple[str, str]:
    """User and password of the pages."""
    user, _, password = folder.login.read_text().strip().partition(":")
    return user, password


def htpasswd_line(user: str, password: str, *, salt: bytes | None = None) -> str:
    """A line that nginx compares a login with: salted SHA-1, which costs nothing per request.

    That is no protection of a password that a person has chosen; these are 192 random bits.
    """
    salt = secrets.token_bytes(8) if salt is None else salt
    digest = hashlib.sha1(password.encode() + salt, usedforsecurity=False).digest()
    return f"{user}:{{SSHA}}{base64.b64encode(digest + salt).decode()}\n"


def scram_verifier(password: str, *, salt: bytes | None = None) -> str:
    """What PostgreSQL keeps of a password (RFC 5803), so that the password itself never reaches it in a statement."""
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${_ROUNDS}:{parts[0]}${parts[1]}:{parts[2]}"


def _password() -> str:
    return secrets.token_urlsafe(_BYTES)
