"""Programs of the operating system: where they are, whom they run as, and what to install where they are missing."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from geoloc_dagster.errors import MissingProgramError, StackFolderError

_SERVERS = Path("/usr/lib/postgresql")
_PLACES = f"{os.defpath}:/usr/sbin:/sbin:/usr/local/sbin"


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the operating system that a service runs as."""

    name: str
    uid: int
    gid: int

    @classmethod
    def current(cls) -> Account:
        """The one of this process."""
        return cls(pwd.getpwuid(os.getuid()).pw_name, os.getuid(), os.getgid())

    @classmethod
    def named(cls, name: str, package: str) -> Account:
        """A system account; the package that brings it is named where it does not exist."""
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise MissingProgramError(f"there is no account {name!r}", f"Debian: apt-get install {package}") from None
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    @property
    def groups(self) -> str:
        """Its group's name, for error messages."""
        return grp.getgrgid(self.gid).gr_name


def service_account(name: str, package: str) -> Account:
    """The account that a service shall run as: its own where this process is root's, else this process's."""
    return Account.named(name, package) if os.getuid() == 0 else Account.current()


def find_program(name: str, package: str) -> str:
    """The path of a program, also of those for administrators.

    Raises:
        MissingProgramError: naming the Debian package.
    """
    found = shutil.which(name) or shutil.which(name, path=_PLACES)
    if found is None:
        raise MissingProgramError(f"the program {name} is missing", f"Debian: apt-get install {package}")
    return found


def postgres_program(name: str, version: str | None = None) -> str:
    """A program of the PostgreSQL server: of the version that wrote a cluster, else of the newest that is installed.

    Raises:
        MissingProgramError: naming the Debian package.
    """
    if version is not None and (_SERVERS / version / "bin" / name).is_file():
        return str(_SERVERS / version / "bin" / name)
    if version is not None:
        raise MissingProgramError(
            f"the database was written by PostgreSQL {version}, which is not installed",
            f"Debian: apt-get install postgresql-{version}, or dump it there and restore it into a new stack.",
        )
    installed = sorted(_SERVERS.glob(f"*/bin/{name}"), key=lambda path: float(path.parent.parent.name))
    return str(installed[-1]) if installed else find_program(name, "postgresql")


def as_account(account: Account, command: list[str], *, last_signal: str = "TERM") -> list[str]:
    """A command that runs as an account, and gets a signal when the process that started it is gone, however that ended."""
    switch = [find_program("setpriv", "util-linux"), f"--pdeathsig={last_signal}"]
    if account.uid != os.getuid():
        switch += [f"--reuid={account.uid}", f"--regid={account.gid}", "--init-groups"]
    return [*switch, "--", *command]


def require_entry(account: Account, folder: Path) -> None:
    """Make sure that an account can reach a folder.

    Raises:
        StackFolderError: naming the folder on the way that keeps it out.
    """
    if account.uid == os.getuid():
        return
    for place in [*reversed(folder.resolve().parents), folder.resolve()]:
        test = as_account(account, ["/usr/bin/test", "-x", str(place)])
        if subprocess.run(test, check=False, capture_output=True).returncode != 0:
            raise StackFolderError(f"the account {account.name!r}, which a service runs as, may not enter {place}")
