"""The files that services are configured by, filled in from the templates that containers use as well."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from importlib import resources

from geoloc_dagster.stack.folder import StackFolder, StackOptions
from geoloc_dagster.stack.ports import LOOPBACK
from geoloc_dagster.stack.programs import Account
from geoloc_dagster.stack.secrets import ROLES, htpasswd_line, login, write_private
from geoloc_dagster.storage import write_bytes

DATABASE_ROLE = "dagster"
_DEQUEUE_S = 5
_PLACE = re.compile(r"\$\{([A-Z_]+)\}")


def fill_in(template: str, values: Mapping[str, object]) -> str:
    """A packaged template with its `${NAME}`s filled in.

    Raises:
        KeyError: a name has no value.
    """
    text = (resources.files("geoloc_dagster.stack") / "templates" / template).read_text(encoding="utf-8")
    return _PLACE.sub(lambda match: str(values[match[1]]), text)


def without_page(text: str, page: str) -> str:
    """A configuration without what it says of a page that is not served, or of another part that there is not."""
    return re.sub(rf"(?ms)^ *# begin {page}$.*?^ *# end {page}$\n?", "", text)


def dagster_yaml(options: StackOptions, database: Mapping[str, object], places: Mapping[str, str]) -> str:
    """`dagster.yaml` wherever it runs.

    Args:
        options: of the stack.
        database: where it is: DATABASE_HOST, DATABASE_PORT, PASSFILE, STORAGE.
        places: environment of runs on Ray, without anything secret: the cluster keeps it with their jobs.
    """
    seconds = options.monitoring
    text = fill_in(
        "dagster.yaml",
        {
            "LAUNCHER_MODULE": f"geoloc_dagster.defs.{'launcher' if options.ray is None else 'ray_launcher'}",
            "LAUNCHER": "HealthCheckedRunLauncher" if options.ray is None else "BackfillsOnRayRunLauncher",
            "RAY_JOBS": json.dumps(options.ray),
            "RAY_ENVIRONMENT": "".join(f"\n        - {json.dumps(f'{name}={value}')}" for name, value in sorted(places.items())),
            "MAX_RUNS": options.max_runs,
            "DEQUEUE_S": min(_DEQUEUE_S, seconds.poll_s),
            "GRACE_S": seconds.grace_s,
            "POLL_S": seconds.poll_s,
            "START_TIMEOUT_S": seconds.start_timeout_s,
            "CANCEL_TIMEOUT_S": seconds.cancel_timeout_s,
            "MAX_RUNTIME_S": seconds.max_runtime_s,
            "FREE_SLOTS_S": seconds.free_slots_s,
            **database,
        },
    )
    return without_page(text, "ray") if options.ray is None else re.sub(r"(?m)^ *# (begin|end) ray$\n", "", text)


def write_dagster_home(
    folder: StackFolder, options: StackOptions, region: str, ports: Mapping[str, int], places: Mapping[str, str]
) -> None:
    """Write `dagster.yaml` and the workspace of the region's code server; `places` as `dagster_yaml` takes them."""
    folder.dagster_home.mkdir(parents=True, exist_ok=True)
    database = {
        "DATABASE_HOST": LOOPBACK,
        "DATABASE_PORT": ports["postgres"],
        "PASSFILE": folder.passfile(DATABASE_ROLE),
        "STORAGE": folder.dagster_home,
    }
    write_bytes(folder.dagster_home / "dagster.yaml", dagster_yaml(options, database, places).encode())
    where = {"CODE_HOST": LOOPBACK, "CODE_PORT": ports["code"], "REGION": region}
    write_bytes(folder.workspace, fill_in("workspace.yaml", where).encode())


def write_database_services(folder: StackFolder, port: int) -> None:
    """Write where the databases are, for people with PostgreSQL's own programs; the passwords stay in their files."""
    sections = [
        f"[{role}]\nhost={LOOPBACK}\nport={port}\nuser={role}\ndbname={role}\npassfile={folder.passfile(role)}\n"
        for role in ROLES
    ]
    write_bytes(folder.database_services, "\n".join(sections).encode())


def write_proxy(
    folder: StackFolder, options: StackOptions, pages: Mapping[str, int], ports: Mapping[str, int], account: Account
) -> None:
    """Write what nginx reads: its configuration, and the passwords, which only its account may read."""
    owner = (account.uid, account.gid)
    for place in (folder.proxy, *(folder.proxy / name for name in ("body", "proxy", "fastcgi", "uwsgi", "scgi"))):
        place.mkdir(parents=True, exist_ok=True)
        shutil.chown(place, *owner)
    access_log = folder.log("proxy-access")
    access_log.touch(mode=0o600)
    shutil.chown(access_log, *owner)
    write_private(folder.proxy / "htpasswd", htpasswd_line(*login(folder)), owner=owner)
    text = fill_in("proxy.conf.template", _proxy_values(folder, options, pages, ports) | {"ACCESS_LOG": access_log})
    for page in ("mlflow", "explorer"):
        if page not in pages:
            text = without_page(text, page)
    write_private(folder.proxy / "proxy.conf", text, owner=owner)
    write_private(folder.proxy / "nginx.conf", fill_in("nginx.conf", {"FOLDER": folder.proxy}), owner=owner)


def _proxy_values(
    folder: StackFolder, options: StackOptions, pages: Mapping[str, int], ports: Mapping[str, int]
) -> dict[str, object]:
    return {
        "SERVER_NAMES": " ".join(("localhost", "127.0.0.1", *options.server_names)),
        "RESOLVER": LOOPBACK,  # never asked: all addresses are numbers here
        "PASSWORDS": folder.proxy / "htpasswd",
        "DAGSTER_UPSTREAM": f"{LOOPBACK}:{ports['webserver']}",
        "MLFLOW_UPSTREAM": f"{LOOPBACK}:{ports['mlflow']}",
        "EXPLORER_UPSTREAM": f"{LOOPBACK}:{ports['explorer']}",
        **{f"{page.upper()}_LISTEN": f"{options.host}:{pages.get(page, 0)}" for page in ("dagster", "mlflow", "explorer")},
    }
