"""A data root in S3-compatible object storage: putting, getting, listing and removing objects, and how Lance reaches it.

Reads and plain writes whose connection is cut are sent again by the library. A write with a condition is not, since nobody knows
whether it has happened: `put_if` looks at what is there then.
"""

from __future__ import annotations

import configparser
import contextlib
import datetime as dt
import functools
import hashlib
import os
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from geoloc_dagster.errors import ObjectStorageError, StaleWriteError
from geoloc_dagster.object_storage.problems import storage_problem

if TYPE_CHECKING:
    import obstore.store
    from obstore.store import ClientConfig

RETRIES: Final = 10
RETRY_S: Final = 45
REQUEST_S: Final = 60
_BACKOFF: Any = {"init_backoff": dt.timedelta(seconds=0.25), "max_backoff": dt.timedelta(seconds=8), "base": 3}


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a listing shows it: its name below the data root, its ETag and its size in bytes."""

    name: str
    etag: str
    size: int


@dataclass(frozen=True)
class ObjectStore:
    """One data root in a bucket.

    Attributes:
        bucket: that exists.
        prefix: of every object, without slashes at its ends; may be empty.
        endpoint: http(s)://host:port; AWS's own without one.
        region: that requests are signed for.
    """

    bucket: str
    prefix: str
    endpoint: str | None
    region: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def uri(self, name: str) -> str:
        """The address of an object or a table, as Lance takes it."""
        return f"{self}/{name}"

    @property
    def lance_options(self) -> dict[str, str]:
        """`storage_options` of Lance: where the store is, the credentials, and how often and long requests are sent again."""
        options = {
            **{f"aws_{name}": value for name, value in credentials(os.environ).items()},
            "aws_region": self.region,
            "aws_virtual_hosted_style_request": "false",
            "aws_conditional_put": "etag",
            "client_max_retries": str(RETRIES),
            "client_retry_timeout": str(RETRY_S),
            "timeout": f"{REQUEST_S}s",
        }
        if self.endpoint is not None:
            options |= {"aws_endpoint": self.endpoint, "allow_http": str(self.endpoint.startswith("http:")).lower()}
        return options

    # --- objects -----------------------------------------------------------------------------------------------------
    def put(self, name: str, content: Path | bytes) -> str:
        """Write an object; its ETag."""
        import obstore

        with _translated():
            return str(obstore.put(self._client, name, content)["e_tag"])

    def put_if(self, name: str, content: bytes, etag: str | None) -> str:
        """Write an object whose ETag is still `etag`, or that does not exist yet where that is None; its new ETag.

        Raises:
            StaleWriteError: there is another one by now.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            mode: Any = "create" if etag is None else {"e_tag": etag}
            return str(obstore.put(self._client, name, content, mode=mode, use_multipart=False)["e_tag"])
        except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
            written = self._holds(name, content)  # an answer that was lost looks like this when the request is sent again
            if written is None:
                raise StaleWriteError(f"{self.uri(name)} was written by another process meanwhile") from error
            return written
        except BaseError as error:
            with _translated():
                written = self._holds(name, content)
            if written is None:
                raise storage_problem(error) or error from error
            return written

    def get(self, name: str) -> bytes | None:
        """The bytes of an object; None where there is none."""
        import obstore

        with _translated():
            try:
                return bytes(obstore.get(self._client, name).bytes())
            except FileNotFoundError:
                return None

    def fetch(self, listed: Listed, target: Path) -> bool:
        """Write an object to a file, unless it is another one by now than was listed; whether it was the same."""
        import obstore
        from obstore.exceptions import PreconditionError

        with _translated():
            try:
                result = obstore.get(self._client, listed.name, options={"if_match": listed.etag})
                with target.open("wb") as stream:
                    for part in result.stream(min_chunk_size=8 << 20):
                        stream.write(part)
            except (FileNotFoundError, PreconditionError):
                return False
        return target.stat().st_size == listed.size

    def sha256(self, name: str) -> str | None:
        """Hex sha256 of an object's bytes, which are fetched for it; None where there is none."""
        import obstore

        digest = hashlib.sha256()
        with _translated():
            try:
                for part in obstore.get(self._client, name).stream(min_chunk_size=8 << 20):
                    digest.update(part)
            except FileNotFoundError:
                return None
        return digest.hexdigest()

    def head(self, name: str) -> Listed | None:
        """An object without its bytes; None where there is none."""
        import obstore

        with _translated():
            try:
                found = obstore.head(self._client, name)
            except FileNotFoundError:
                return None
        return Listed(name, str(found["e_tag"]), int(found["size"]))

    def list(self, folder: str = "") -> Iterator[Listed]:
        """Every object below a folder of the data root, however deep, by name."""
        import obstore

        with _translated():
            for chunk in obstore.list(self._client, folder or None, chunk_size=1_000):
                for one in chunk:
                    yield Listed(str(one["path"]), str(one["e_tag"]), int(one["size"]))

    def folders(self, folder: str = "") -> tuple[list[str], list[Listed]]:
        """Names of the folders right below a folder of the data root, and the objects right in it."""
        import obstore

        with _translated():
            found = obstore.list_with_delimiter(self._client, folder or None)
        files = [Listed(str(one["path"]), str(one["e_tag"]), int(one["size"])) for one in found["objects"]]
        return [str(one).rstrip("/") for one in found["common_prefixes"]], files

    def remove(self, *names: str) -> None:
        """Remove objects; those that are gone already do not matter."""
        import obstore

        with _translated():
            for first in range(0, len(names), 1_000):
                obstore.delete(self._client, list(names[first : first + 1_000]))

    def prove_conditions(self, name: str, content: bytes) -> None:
        """Make sure that the server refuses to create what exists; concurrent commits would overwrite each other otherwise.

        Args:
            name: of an object that holds `content` or does not exist.
            content: written there.

        Raises:
            ObjectStorageError: it does not refuse, or cannot be reached.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError

        for _ in range(2):
            with contextlib.suppress(AlreadyExistsError), _translated():
                obstore.put(self._client, name, content, mode="create", use_multipart=False)
                continue
            return
        raise ObjectStorageError(
            f"the server of {self} ignores If-None-Match: two writers of one table would lose each other's rows",
            "Use a server that honours conditional writes, or a local data root.",
        )

    def _holds(self, name: str, content: bytes) -> str | None:
        """The ETag of an object that holds just these bytes; None where there is another, or none."""
        if self.get(name) != content:
            return None
        found = self.head(name)
        return None if found is None else found.etag

    @functools.cached_property
    def _client(self) -> obstore.store.S3Store:
        try:
            from obstore.store import S3Store
        except ImportError as error:
            raise ObjectStorageError(
                f"{self} needs the package obstore, which is not installed", "Run `pip install 'geoloc-dagster[s3]'`."
            ) from error
        keys: dict[str, Any] = credentials(os.environ)
        options: ClientConfig = {"timeout": f"{REQUEST_S}s", "connect_timeout": "5s"}
        if self.endpoint is not None:
            keys["endpoint"] = self.endpoint
            options["allow_http"] = self.endpoint.startswith("http:")
        return S3Store(
            self.bucket,
            prefix=self.prefix or None,
            region=self.region,
            virtual_hosted_style_request=False,
            client_options=options,
            retry_config={"max_retries": RETRIES, "retry_timeout": dt.timedelta(seconds=RETRY_S), "backoff": _BACKOFF},
            **keys,
        )


def credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """Keys from AWS's usual variables, else from its credentials file; none where the machine's own role gives them.

    Raises:
        ObjectStorageError: the file or the profile that the environment names is not there or has no keys.
    """
    names = {"access_key_id": "AWS_ACCESS_KEY_ID", "secret_access_key": "AWS_SECRET_ACCESS_KEY"}
    token = "session_token", "AWS_SESSION_TOKEN"
    if all(environ.get(variable) for variable in names.values()):
        wanted = {**names, token[0]: token[1]}
        return {name: environ[variable] for name, variable in wanted.items() if environ.get(variable)}
    named, profile = environ.get("AWS_SHARED_CREDENTIALS_FILE"), environ.get("AWS_PROFILE")
    path = Path(named or "~/.aws/credentials").expanduser()
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text() if path.is_file() else "")
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise ObjectStorageError(f"{path} cannot be read as a file of credentials ({type(error).__name__})") from error
    section = parser[profile or "default"] if parser.has_section(profile or "default") else {}
    found = {name: section[f"aws_{name}"] for name in (*names, token[0]) if section.get(f"aws_{name}")}
    if set(names) <= found.keys():
        return found
    if named or profile:
        raise ObjectStorageError(f"{path} has no keys in its section [{profile or 'default'}]")
    return {}


@contextlib.contextmanager
def _translated() -> Generator[None]:
    """Errors of the library as ours; that an object exists, is missing or is another one is its callers' business."""
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise storage_problem(error) or error from error
        raise
    except BaseError as error:
        raise storage_problem(error) or error from error
