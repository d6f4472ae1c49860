"""The stack's own PostgreSQL cluster: made once, listening on the loopback interface only, every connection with a password."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from pathlib import Path

from geoloc_dagster.errors import StackError
from geoloc_dagster.stack.folder import StackFolder
from geoloc_dagster.stack.programs import Account, as_account, postgres_program, require_entry, service_account
from geoloc_dagster.stack.secrets import ROLES, role_password, scram_verifier, write_private

_ACCESS = """# written when the cluster was made: no way in without a password, not even from this machine
host all all 127.0.0.1/32 scram-sha-256
"""


def database_account() -> Account:
    """Whom the database runs as: it refuses root."""
    return service_account("postgres", "postgresql")


def prepare_cluster(folder: StackFolder, account: Account) -> None:
    """Make the cluster with one role and database per client, where it is not there yet. A killed attempt is made again.

    Raises:
        MissingProgramError: PostgreSQL is missing, or the version that wrote the cluster is.
        StackFolderError: the account cannot reach the folder.
        StackError: the cluster cannot be made.
    """
    if (folder.postgres / "PG_VERSION").is_file():
        postgres_program("postgres", cluster_version(folder))
        return
    require_entry(account, folder.root)
    unfinished = folder.postgres.with_name("postgres.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True, mode=0o700)
    shutil.chown(unfinished, account.uid, account.gid)
    options = ["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
    secret = _superuser_file(folder, account)
    try:
        _run(account, [postgres_program("initdb"), *options, f"--pwfile={secret}", f"--pgdata={unfinished}"])
    finally:
        secret.unlink()
    _run(account, [postgres_program("postgres"), "--single", "-D", str(unfinished), "postgres"], _bootstrap(folder))
    access = unfinished / "pg_hba.conf"
    access.write_text(_ACCESS)
    shutil.chown(access, account.uid, account.gid)
    unfinished.replace(folder.postgres)


def cluster_version(folder: StackFolder) -> str:
    """The major version of PostgreSQL that wrote the cluster."""
    return (folder.postgres / "PG_VERSION").read_text().strip()


def server_command(folder: StackFolder, port: int) -> list[str]:
    """The server, on the loopback interface only and without a socket in the file system."""
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": 200,
        "log_min_error_statement": "panic",  # a statement may hold what must not be in a log
        "password_encryption": "scram-sha-256",
    }
    flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [postgres_program("postgres", cluster_version(folder)), "-D", str(folder.postgres), *flags]


def _superuser_file(folder: StackFolder, account: Account) -> Path:
    """A password that nobody will ever know: the superuser is not used once the cluster is made."""
    path = folder.root / ".superuser"
    write_private(path, secrets.token_urlsafe(32), owner=(account.uid, account.gid))
    return path


def _bootstrap(folder: StackFolder) -> str:
    """A statement per line, as the server's single-user mode reads them."""
    lines: list[str] = []
    for role in ROLES:
        lines.append(f"CREATE ROLE {role} LOGIN PASSWORD '{scram_verifier(role_password(folder, role))}'")
        lines.append(f"CREATE DATABASE {role} OWNER {role}")
        lines.append(f"REVOKE CONNECT, TEMPORARY ON DATABASE {role} FROM PUBLIC")
    return "\n".join(lines) + "\n"


def _run(account: Account, command: list[str], text: str = "") -> None:
    done = subprocess.run(as_account(account, command), input=text, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode != 0 or "ERROR:" in done.stderr:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
        raise StackError(f"the database cannot be made: {last[0]}", "Correct that; the next start makes it again.")
