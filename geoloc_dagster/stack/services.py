"""The services of a stack: what each is started as, what has to be there before it, and how it shows that it is ready."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from geoloc_dagster.object_storage.binding import KEY_VARIABLES, working_copy_at
from geoloc_dagster.stack import postgres, probes
from geoloc_dagster.stack.folder import StackFolder, StackOptions
from geoloc_dagster.stack.ports import LOOPBACK
from geoloc_dagster.stack.programs import Account, find_program, postgres_program

# In the order of starting; ended in the opposite one. Containers have the same services, by the same names.
ORDER = ("postgres", "mlflow", "emulator", "code", "webserver", "daemon", "explorer", "proxy")
_PLAIN = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME", "OMP_NUM_THREADS", "GEOLOC_STATE")
_RAY = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")


@dataclass(frozen=True)
class Service:
    """A program that is kept running.

    Attributes:
        name: one of `ORDER`.
        command: with arguments, none of them secret.
        account: whom it runs as.
        environment: all of it.
        ready: asked until it is true.
        needs: services that are ready before this one starts.
        folder: it runs in.
        stop_signal: what ends it in good order.
        stop_s: after which it is killed.
        start_s: after which it is said that it does not start.
    """

    name: str
    command: list[str]
    account: Account
    environment: Mapping[str, str]
    ready: probes.Probe
    needs: tuple[str, ...] = ()
    folder: Path = Path("/")
    stop_signal: signal.Signals = signal.SIGTERM
    stop_s: float = 20.0
    start_s: float = 180.0


@dataclass(frozen=True)
class Site:
    """What the services of one region's stack are made from.

    Attributes:
        region: the region's name.
        region_folder: with `definitions.py` and `geoloc.yaml`.
        data_root: of the region.
        emulated: whether the region looks at an emulated city.
        folder: of the stack.
        options: that it was started with.
        ports: private ones, by service.
        pages: published ones, by page.
        environ: of the person who starts the stack; only the code server gets all of it, for the keys of services.
    """

    region: str
    region_folder: Path
    data_root: Path
    emulated: bool
    folder: StackFolder
    options: StackOptions
    ports: Mapping[str, int]
    pages: Mapping[str, int]
    environ: Mapping[str, str]
    database: Account = field(default_factory=postgres.database_account)
    web: Account = field(default_factory=Account.current)

    @property
    def plain(self) -> dict[str, str]:
        """The environment of a service that needs nothing of the user's."""
        kept = {name: self.environ[name] for name in _PLAIN if name in self.environ}
        return kept | {"PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}

    @property
    def reader(self) -> dict[str, str]:
        """The environment of a service that reads the data root, which takes keys where that is in object storage."""
        in_storage = working_copy_at(self.data_root) is not None
        return self.plain | {name: self.environ[name] for name in KEY_VARIABLES if in_storage and name in self.environ}

    @property
    def dagster(self) -> dict[str, str]:
        """The environment of Dagster's own processes; where runs go to Ray, they are what asks it."""
        kept = {name: self.environ[name] for name in _RAY if self.options.ray is not None and name in self.environ}
        return self.plain | kept | {"DAGSTER_HOME": str(self.folder.dagster_home)}

    @property
    def places(self) -> dict[str, str]:
        """Where everything is that a run needs; nothing secret."""
        places = {"GEOLOC_CONFIG": str(self.region_folder / "geoloc.yaml"), "GEOLOC_DATA_ROOT": str(self.data_root)}
        if self.emulated:
            places["GEOLOC_EMULATOR_URL"] = f"http://{LOOPBACK}:{self.ports['emulator']}"
        if self.options.mlflow:
            places["MLFLOW_TRACKING_URI"] = f"http://{LOOPBACK}:{self.ports['mlflow']}"
            places["GEOLOC_MLFLOW_PAGE"] = f"http://{self.options.host}:{self.pages['mlflow']}"
        return places

    @property
    def code(self) -> dict[str, str]:
        """The environment of the code server, and so of every run: the user's, with where everything is."""
        return {**self.environ, **self.dagster, **self.places}


def build_services(site: Site) -> list[Service]:
    """The services that run here, in the order of starting.

    Raises:
        MissingProgramError: a program is missing.
    """
    makers = {
        "postgres": _postgres,
        "mlflow": _mlflow,
        "emulator": _emulator,
        "code": _code,
        "webserver": _webserver,
        "daemon": _daemon,
        "explorer": _explorer,
        "proxy": _proxy,
    }
    absent = {
        name
        for name, wanted in (("mlflow", site.options.mlflow), ("emulator", site.emulated), ("explorer", site.options.explorer))
        if not wanted
    }
    return [makers[name](site) for name in ORDER if name not in absent]


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _here(port: int) -> list[str]:
    return ["--host", LOOPBACK, "--port", str(port)]


def _postgres(site: Site) -> Service:
    port = site.ports["postgres"]
    return Service(
        "postgres",
        postgres.server_command(site.folder, port),
        site.database,
        site.plain,
        probes.database_ready(postgres_program("pg_isready", postgres.cluster_version(site.folder)), port),
        folder=site.folder.postgres,
        stop_signal=signal.SIGINT,  # ends connections rather than waiting for them
        stop_s=30.0,
    )


def _mlflow(site: Site) -> Service:
    port = site.ports["mlflow"]
    database = (
        f"postgresql+psycopg2://mlflow@{LOOPBACK}:{site.ports['postgres']}/mlflow?passfile={site.folder.passfile('mlflow')}"
    )
    command = _python("mlflow", "server", *_here(port), "--workers", "1", "--serve-artifacts")
    command += ["--backend-store-uri", database, "--artifacts-destination", str(site.folder.mlflow_artifacts)]
    ready = probes.http_status(port, "/health")
    return Service("mlflow", command, Account.current(), site.plain, ready, ("postgres",), site.folder.root)


def _emulator(site: Site) -> Service:
    port = site.ports["emulator"]
    command = _python("geoloc_dagster", "emulator", "--config", str(site.region_folder), "--port", str(port))
    ready = probes.http_status(port, "/emulator/health")
    return Service("emulator", command, Account.current(), site.plain, ready, folder=site.region_folder)


def _code(site: Site) -> Service:
    command = _python("geoloc_dagster.defs.code_server", *_here(site.ports["code"]), "--location-name", site.region)
    command += ["--python-file", str(site.region_folder / "definitions.py"), "--working-directory", str(site.region_folder)]
    command += ["--use-python-environment-entry-point"]  # a node of a cluster need not have `dagster` on its path
    ready = probes.code_server_ready(site.ports["code"])
    # It would wait for its runs. They are cut short instead, and are repeated, each from where it stopped, at the next start.
    return Service("code", command, Account.current(), site.code, ready, ("postgres",), site.region_folder, stop_s=5.0)


def _webserver(site: Site) -> Service:
    port = site.ports["webserver"]
    command = _python("dagster_webserver", *_here(port), "--workspace", str(site.folder.workspace))
    ready = probes.http_status(port, "/server_info")
    return Service("webserver", command, Account.current(), site.dagster, ready, ("code",), site.folder.dagster_home)


def _daemon(site: Site) -> Service:
    command = _python("geoloc_dagster.defs.daemon", "run", "--workspace", str(site.folder.workspace))
    ready = probes.daemons_healthy(site.ports["webserver"])
    return Service("daemon", command, Account.current(), site.dagster, ready, ("code",), site.folder.dagster_home)


def _explorer(site: Site) -> Service:
    port = site.ports["explorer"]
    command = _python("geoloc_dagster", "explorer", *_here(port), "--config", str(site.region_folder))
    command += ["--data-root", str(site.data_root)]
    ready = probes.http_status(port, "/health")
    return Service("explorer", command, Account.current(), site.reader, ready, folder=site.region_folder)


def _proxy(site: Site) -> Service:
    command = [find_program("nginx", "nginx-light"), "-p", str(site.folder.proxy), "-e", "stderr"]
    command += ["-c", str(site.folder.proxy / "nginx.conf")]
    ready = probes.http_status(site.pages["dagster"], "/", expected=401)
    return Service("proxy", command, site.web, site.plain, ready, ("webserver",), site.folder.proxy)
