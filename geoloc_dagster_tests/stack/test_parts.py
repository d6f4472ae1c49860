"""The parts of a stack one at a time: secrets, ports, programs, the proxy's file, and who is started again when."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from geoloc_dagster.errors import ConfigError, MissingProgramError, PortTakenError, StackError, StackFolderError
from geoloc_dagster.object_storage.binding import attach
from geoloc_dagster.stack import configuration, ports, programs, run, secrets
from geoloc_dagster.stack.folder import StackFolder, StackOptions
from geoloc_dagster.stack.programs import Account
from geoloc_dagster.stack.services import Service, Site
from geoloc_dagster.stack.supervisor import Supervisor, end_leftovers
from geoloc_dagster_tests.stack.driver import is_alive


@pytest.fixture
def folder(tmp_path: Path) -> StackFolder:
    made = StackFolder(tmp_path / "stack")
    made.hold.mkdir(parents=True)
    return made


# --- environments --------------------------------------------------------------------------------------------------
def test_only_services_that_read_a_data_root_in_object_storage_get_its_keys(folder: StackFolder, tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    here, there = tmp_path / "data", tmp_path / "copy"
    attach(there, bucket="bucket", prefix="", endpoint=None, region="us-east-1")
    sites = [
        Site(
            "oslo", tmp_path, root, False, folder, StackOptions(mlflow=False), {}, {}, keys, Account.current(), Account.current()
        )
        for root in (here, there)
    ]
    assert [keys.items() <= site.reader.items() for site in sites] == [False, True]
    assert [keys.items() <= site.dagster.items() for site in sites] == [False, False]
    assert all(keys.items() <= site.code.items() for site in sites)


# --- secrets -------------------------------------------------------------------------------------------------------
def test_secrets_are_made_once_for_their_owner_only(folder: StackFolder) -> None:
    secrets.make_secrets(folder)
    first = {path.name: path.read_text() for path in folder.secrets.iterdir()}
    secrets.make_secrets(folder)
    assert {path.name: path.read_text() for path in folder.secrets.iterdir()} == first
    assert set(first) == {"login", "dagster.pgpass", "mlflow.pgpass"}
    assert {path.stat().st_mode & 0o777 for path in folder.secrets.iterdir()} == {0o600}
    assert len({secrets.login(folder)[1], *(secrets.role_password(folder, role) for role in secrets.ROLES)}) == 3


def test_the_verifier_is_the_one_of_the_specification() -> None:
    """Password, salt and rounds of the example in RFC 7677; its server signature follows from the server key."""
    import base64
    import hmac

    verifier = secrets.scram_verifier("pencil", salt=base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    assert verifier.startswith("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$")
    server_key = base64.b64decode(verifier.rpartition(":")[2])
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    said = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}"
    signature = hmac.digest(server_key, said.encode(), "sha256")
    assert base64.b64encode(signature).decode() == "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_a_login_is_salted() -> None:
    """As `(printf x12345678 | openssl dgst -sha1 -binary; printf 12345678) | base64` says."""
    assert secrets.htpasswd_line("geoloc", "x", salt=b"12345678") == "geoloc:{SSHA}lHeI35l+ejo6l0IESGtSM5q9+JsxMjM0NTY3OA==\n"
    assert secrets.htpasswd_line("geoloc", "x") != secrets.htpasswd_line("geoloc", "x")


# --- what has to be there ------------------------------------------------------------------------------------------
def test_a_missing_program_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(MissingProgramError, match=r"GEO-601 the program nginx is missing\. Debian: apt-get install nginx-light"):
        programs.find_program("nginx", "nginx-light")
    with pytest.raises(MissingProgramError, match="apt-get install postgresql-9"):
        programs.postgres_program("postgres", "9")


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"GEO-602 port {port} of 127\.0\.0\.1, for the page of dagster"):
            ports.require_free("127.0.0.1", [("dagster", port)])


def test_private_ports_are_kept_unless_somebody_else_has_them(folder: StackFolder) -> None:
    first = ports.private_ports(folder)
    assert len(set(first.values())) == len(ports.PRIVATE)
    assert ports.private_ports(folder) == first
    with socket.create_server(("127.0.0.1", first["code"])):
        again = ports.private_ports(folder)
    assert {name for name in first if again[name] != first[name]} == {"code"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root starts services as other accounts")
def test_a_folder_that_an_account_cannot_enter_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "stack").mkdir(parents=True)
    closed.chmod(0o700)
    with pytest.raises(StackFolderError, match=r"GEO-605 the account 'nobody', .* may not enter"):
        programs.require_entry(Account.named("nobody", "base-passwd"), closed / "stack")


def test_a_region_without_definitions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no definitions\.py"):
        run._require_definitions(tmp_path)


def test_a_page_that_is_not_served_is_not_in_the_proxys_file(folder: StackFolder) -> None:
    secrets.make_secrets(folder)
    folder.logs.mkdir()
    private, me = ports.private_ports(folder), Account.current()
    options = StackOptions(port=9000, mlflow=False, server_names=("geo.example",))
    configuration.write_proxy(folder, options, ports.page_ports(options), private, me)
    text = (folder.proxy / "proxy.conf").read_text()
    assert "listen 127.0.0.1:9000;" in text
    assert "listen 127.0.0.1:9002;" in text
    assert "9001" not in text
    assert "server_name localhost 127.0.0.1 geo.example;" in text
    assert "${" not in text
    assert (folder.proxy / "htpasswd").stat().st_mode & 0o777 == 0o600


def test_runs_go_to_ray_where_that_is_wanted_and_what_asks_it_has_the_token(folder: StackFolder, tmp_path: Path) -> None:
    environ = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/etc/token", "GEOLOC_SERVICE_KEY": "sesame", "PATH": "/bin"}
    private = dict.fromkeys(("postgres", "code", "emulator", "mlflow", "webserver"), 4321)
    launchers = {}
    for ray in (None, "http://10.0.0.1:8265"):
        options = StackOptions(ray=ray)
        site = Site("oslo", tmp_path, tmp_path / "data", True, folder, options, private, {"mlflow": 8081}, environ)
        configuration.write_dagster_home(folder, options, "oslo", private, {**site.places, "GEOLOC_ENGINE": "ray"})
        text = (folder.dagster_home / "dagster.yaml").read_text()
        assert "${" not in text
        assert "sesame" not in text, "the cluster keeps what is here with every job"
        launchers[ray] = yaml.safe_load(text)["run_launcher"]
        assert site.dagster.get("RAY_AUTH_TOKEN_PATH") == (None if ray is None else "/etc/token")
    assert (launchers[None]["class"], "ray" in launchers[None]["config"]) == ("HealthCheckedRunLauncher", False)
    on_ray = launchers["http://10.0.0.1:8265"]
    assert on_ray["class"] == "BackfillsOnRayRunLauncher"
    assert on_ray["config"]["ray"]["address"] == "http://10.0.0.1:8265"
    assert {"GEOLOC_ENGINE=ray", f"GEOLOC_DATA_ROOT={tmp_path / 'data'}"} <= set(on_ray["config"]["ray"]["env_vars"])


# --- who runs ------------------------------------------------------------------------------------------------------
def service(name: str, folder: StackFolder, script: str, *needs: str) -> Service:
    """A service that is ready once it has written its file."""
    flag = folder.root / f"{name}.ready"
    body = f"import pathlib, os, sys, time\n{script}\npathlib.Path({str(flag)!r}).touch()\ntime.sleep(60)\n"
    return Service(
        name, [sys.executable, "-c", body], Account.current(), dict(os.environ), flag.exists, needs, stop_s=5, start_s=20
    )


class Watched:
    """A supervisor that is looked after by this thread, and what it said."""

    def __init__(self, folder: StackFolder, *services: Service) -> None:
        self.said: list[str] = []
        self.supervisor = Supervisor(services, folder, self.said.append, {})

    def until(self, condition: Callable[[], object], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.said
            self.supervisor.look()
            time.sleep(0.02)

    def pid(self, folder: StackFolder, name: str) -> int | None:
        from geoloc_dagster.storage import read_json

        return read_json(folder.status)["services"][name]["pid"]


def test_services_start_in_order_start_again_and_end_in_the_opposite_order(folder: StackFolder) -> None:
    watched = Watched(folder, service("a", folder, "time.sleep(0.3)"), service("b", folder, "pass", "a"))
    try:
        assert watched.supervisor.start()
        assert [line.split()[:2] for line in watched.said] == [["a", "ready"], ["b", "ready"]]
        first = watched.pid(folder, "a")
        os.kill(first, signal.SIGKILL)
        watched.until(lambda: watched.pid(folder, "a") not in (None, first))
        assert any("a ended (killed by SIGKILL) and starts again in 0.5 s" in line for line in watched.said)
        assert str(folder.log("a")) in "".join(watched.said)
    finally:
        watched.supervisor.stop()
    assert [line for line in watched.said if line.endswith(" ended")] == ["b ended", "a ended"]


def test_what_a_service_started_goes_with_it(folder: StackFolder) -> None:
    child = folder.root / "child"
    script = f"import subprocess; p = subprocess.Popen(['sleep', '60']); pathlib.Path({str(child)!r}).write_text(str(p.pid))"
    watched = Watched(folder, service("code", folder, script))
    try:
        assert watched.supervisor.start()
        pid = int(child.read_text())
        os.kill(watched.pid(folder, "code"), signal.SIGKILL)
        watched.until(lambda: not is_alive(pid))
    finally:
        watched.supervisor.stop()


def test_a_held_service_stays_down_until_it_is_released(folder: StackFolder) -> None:
    watched = Watched(folder, service("a", folder, "pass"))
    try:
        assert watched.supervisor.start()
        (folder.hold / "a").touch()
        watched.until(lambda: watched.pid(folder, "a") is None)
        for _ in range(20):
            watched.supervisor.look()
        assert watched.pid(folder, "a") is None
        (folder.hold / "a").unlink()
        watched.until(lambda: watched.pid(folder, "a"))
    finally:
        watched.supervisor.stop()


def test_a_service_that_does_not_start_is_named_with_its_last_words(folder: StackFolder) -> None:
    broken = service("code", folder, "sys.exit('GEO-101 line 3: unknown key')")
    watched = Watched(folder, service("postgres", folder, "pass"), broken)
    try:
        with pytest.raises(
            StackError, match=r"GEO-603 the service code ends at once; its log .*code\.log ends with: GEO-101 line 3"
        ):
            watched.supervisor.start()
    finally:
        watched.supervisor.stop()
    assert watched.pid(folder, "postgres") is None


def test_starting_can_be_interrupted(folder: StackFolder) -> None:
    stop = threading.Event()
    watched = Watched(folder, service("a", folder, "time.sleep(30)"))
    threading.Timer(0.5, stop.set).start()
    try:
        assert not watched.supervisor.start(stop.is_set)
    finally:
        watched.supervisor.stop()


def test_what_a_killed_stack_has_left_is_ended(folder: StackFolder) -> None:
    watched = Watched(folder, service("a", folder, "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"))
    assert watched.supervisor.start()
    pid = watched.pid(folder, "a")
    assert end_leftovers(folder, patience_s=0.5) == [pid]
    watched.until(lambda: watched.pid(folder, "a") is None)
    watched.supervisor.stop()
