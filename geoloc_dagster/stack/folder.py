"""Where a stack keeps what it makes, and the options that it is started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StackFolder:
    """Every path below one stack's folder."""

    root: Path

    @property
    def secrets(self) -> Path:
        """Folder of passwords, which only its owner may enter."""
        return self.root / "secrets"

    @property
    def login(self) -> Path:
        """`user:password` of the person who opens the pages."""
        return self.secrets / "login"

    def passfile(self, role: str) -> Path:
        """What libpq reads the password of a database role from."""
        return self.secrets / f"{role}.pgpass"

    @property
    def logs(self) -> Path:
        """Folder with one log per service."""
        return self.root / "logs"

    def log(self, service: str) -> Path:
        """The log of a service."""
        return self.logs / f"{service}.log"

    @property
    def status(self) -> Path:
        """JSON of what runs: process, state and starts of each service, and the addresses of the pages."""
        return self.root / "status.json"

    @property
    def ports(self) -> Path:
        """JSON of the private ports, kept from start to start."""
        return self.root / "ports.json"

    @property
    def database_services(self) -> Path:
        """PGSERVICEFILE of the databases, for `psql`, `pg_dump` and `pg_restore`: `service=dagster`, `service=mlflow`."""
        return self.root / "pg_service.conf"

    @property
    def lock(self) -> Path:
        """Held by the one stack that runs here."""
        return self.root / "lock"

    @property
    def hold(self) -> Path:
        """Folder of services to be kept down: a file with the name of one ends it, without the file it starts again."""
        return self.root / "hold"

    @property
    def postgres(self) -> Path:
        """The database cluster."""
        return self.root / "postgres"

    @property
    def dagster_home(self) -> Path:
        """DAGSTER_HOME, with the rendered `dagster.yaml` and the logs of steps."""
        return self.root / "dagster"

    @property
    def workspace(self) -> Path:
        """Where webserver and daemon find the code server."""
        return self.dagster_home / "workspace.yaml"

    @property
    def mlflow_artifacts(self) -> Path:
        """Files that trainings log."""
        return self.root / "mlflow"

    @property
    def proxy(self) -> Path:
        """Configuration and passwords of the proxy."""
        return self.root / "proxy"


@dataclass(frozen=True, slots=True)
class Monitoring:
    """How soon the control plane notices what has gone wrong, in seconds.

    Attributes:
        poll_s: between two looks at the runs.
        grace_s: a code server may be out of reach so long before its runs count as lost.
        free_slots_s: after which a run that has ended without saying so gives its places in pools back.
        start_timeout_s: a run that has not started by then has failed.
        cancel_timeout_s: a run that has not ended by then is cancelled all the same.
        max_runtime_s: a run that takes longer is ended; the tag `dagster/max_runtime` of a run wins.
    """

    poll_s: int = 10
    grace_s: int = 30
    free_slots_s: int = 60
    start_timeout_s: int = 180
    cancel_timeout_s: int = 60
    max_runtime_s: int = 86_400


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What a stack is started with.

    Attributes:
        port: of the Dagster UI; MLflow's is the next one, the explorer's the one after.
        host: address that the proxy listens on.
        server_names: names under which the pages may be asked for, beside localhost and 127.0.0.1.
        explorer: whether the explorer is served.
        mlflow: whether trainings are logged to an MLflow server; without, to the region's own file.
        max_runs: at once.
        monitoring: see there.
        ray: address of the Jobs API of a Ray cluster on which backfills run; without, everything runs here.
    """

    port: int = 8080
    host: str = "127.0.0.1"
    server_names: tuple[str, ...] = ()
    explorer: bool = True
    mlflow: bool = True
    max_runs: int = 2
    monitoring: Monitoring = field(default_factory=Monitoring)
    ray: str | None = None
