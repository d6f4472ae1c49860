"""The way out: direct, HTTP and SOCKS proxies, Privoxy before a SOCKS port, Tor's control port; nothing leaves this machine."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from geoloc_dagster.emulator.process import EmulatorThread, serve_in_thread
from geoloc_dagster.errors import ConfigError, EgressError, ServiceBlockedError
from geoloc_dagster.imagery.client import Etiquette, ServiceClient
from geoloc_dagster.imagery.egress import Egress
from geoloc_dagster.imagery.google import GoogleStreetView, Lookup
from geoloc_dagster.imagery.provider import RequestFailedError, Terms
from geoloc_dagster.imagery.tor import Tor
from geoloc_dagster_tests.emulator.stub_city import ORIGIN, TODAY, StubCity
from geoloc_dagster_tests.imagery.stubs import control_port, serve, socks5

PASSWORD = "only-for-this-test"
tor = shutil.which("tor") or "/usr/sbin/tor"
privoxy = shutil.which("privoxy") or "/usr/sbin/privoxy"
needs_tor = pytest.mark.skipif(not Path(tor).exists(), reason="tor is not installed (Debian: apt-get install tor)")
needs_privoxy = pytest.mark.skipif(
    not Path(privoxy).exists(), reason="privoxy is not installed (Debian: apt-get install privoxy)"
)


@pytest.fixture
def service() -> Iterator[EmulatorThread]:
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, city=StubCity()) as emulator:  # type: ignore[arg-type]
        yield emulator


def look_up(service: EmulatorThread, egress: Egress, count: int = 1) -> list[Lookup]:
    client = ServiceClient("emulator", service.url, Etiquette(requests_per_second=200, attempts=1), proxy=egress.proxy())
    street = GoogleStreetView(client, Terms("CC0-1.0", "emulated city"), name="emulator")

    async def ask() -> list[Lookup]:
        async with street.session():
            return [await street.lookup(*ORIGIN) for _ in range(count)]

    return asyncio.run(ask())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def running(command: list[str], port: int) -> Generator[subprocess.Popen[bytes]]:
    """A server, once it listens on `port`; ended afterwards."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not listens(port):
            assert child.poll() is None, f"{command[0]} ended with {child.returncode}"
            assert time.monotonic() < deadline, f"{command[0]} does not listen"
            time.sleep(0.05)
        yield child
    finally:
        child.terminate()
        child.wait(20)


def through_privoxy(folder: Path, socks_port: int) -> tuple[list[str], int]:
    port = free_port()
    config = folder / "privoxy.conf"
    config.write_text(
        f"listen-address 127.0.0.1:{port}\ntoggle 0\nenable-remote-toggle 0\nenable-edit-actions 0\n"
        f"confdir /etc/privoxy\nforward-socks5t / 127.0.0.1:{socks_port} .\n"
    )
    return [privoxy, "--no-daemon", str(config)], port


# --- the configuration ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("proxy", ["ftp://a:1", "http://host", "socks5://:80", "http://h:99999", "h:80", "http://h:80/path"])
def test_what_is_no_proxy_is_refused(proxy: str):
    with pytest.raises(ConfigError, match="is no proxy"):
        Egress.parse(proxy)


def test_credentials_do_not_go_into_files_and_are_not_shown(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="carries credentials") as refused:
        Egress.parse("http://user:hunter2@proxy.example:80")
    assert "hunter2" not in str(refused.value)
    monkeypatch.setenv("GEOLOC_PROXY_CREDENTIALS", "user:hunter2")
    egress = Egress.parse("socks5h://proxy.example:1080")
    assert egress.credentials == ("user", "hunter2")
    assert "hunter2" not in repr(egress)
    assert "hunter2" not in repr(egress.proxy())
    with pytest.raises(ConfigError, match="browser"):
        egress.browser_proxy()


def test_a_browser_sends_even_loopback_through_the_proxy():
    assert Egress.parse(None).browser_proxy() is None
    http, socks = Egress.parse("http://127.0.0.1:81").browser_proxy(), Egress.parse("socks5://[::1]:82").browser_proxy()
    assert http is not None
    assert socks is not None
    assert http["httpProxy"] == http["sslProxy"] == "127.0.0.1:81"
    assert http["noProxy"] == ["<-loopback>"]
    assert socks["socksVersion"] == 5


# --- proxies --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_everything_goes_through_a_socks_proxy(service: EmulatorThread, scheme: str):
    with serve(socks5) as stub:
        assert look_up(service, Egress.parse(f"{scheme}://127.0.0.1:{stub.port}"))[0].status == "OK"
    assert stub.seen == [service.url.removeprefix("http://")]


def test_a_proxy_that_is_away_is_not_gone_around(service: EmulatorThread):
    with pytest.raises(RequestFailedError) as failure:
        look_up(service, Egress.parse(f"http://127.0.0.1:{free_port()}"))
    assert failure.value.kind == "network"
    assert service.hits()["totals"]["requests"] == 0


def test_a_proxy_that_refuses_the_password_ends_the_run_and_says_nothing_of_the_place(service: EmulatorThread):
    def refuse(connection: socket.socket, seen: list[str]) -> None:
        seen.append(connection.recv(65_536).split(b" ")[1].decode())
        connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with serve(refuse) as stub, pytest.raises(EgressError, match="refuses user or password"):
        look_up(service, Egress.parse(f"http://127.0.0.1:{stub.port}"), count=3)
    assert len(stub.seen) == 1
    assert service.hits()["totals"]["requests"] == 0


@needs_privoxy
def test_privoxy_passes_everything_on_to_the_socks_port_behind_it(service: EmulatorThread, tmp_path: Path):
    with serve(socks5) as stub:
        command, port = through_privoxy(tmp_path, stub.port)
        with running(command, port):
            answers = look_up(service, Egress.parse(f"http://127.0.0.1:{port}"), count=20)
    assert [answer.status for answer in answers] == ["OK"] * 20
    assert service.hits()["totals"]["requests"] == 20
    assert set(stub.seen) == {service.url.removeprefix("http://")}


# --- Tor ------------------------------------------------------------------------------------------------------------
def test_a_circuit_comes_only_as_often_as_tor_allows_and_never_after_a_block():
    slept: list[float] = []
    with serve(control_port(PASSWORD)) as stub, Tor(stub.port, password=PASSWORD, sleep=slept.append) as control:
        control.fresh_circuit()
        control.fresh_circuit()
        control.blocked("a page for people")
        with pytest.raises(ServiceBlockedError, match="no fresh circuit after a block"):
            control.fresh_circuit()
    assert stub.seen.count("SIGNAL NEWNYM") == 2
    assert len(slept) == 1
    assert 8 < slept[0] <= 10


def test_a_wrong_password_is_one_clear_error_without_it():
    with serve(control_port(PASSWORD)) as stub, pytest.raises(EgressError, match="refused the password") as refused:
        Tor(stub.port, password="something-else")
    assert "something-else" not in str(refused.value)


def test_no_control_port_is_one_clear_error():
    with pytest.raises(EgressError, match="no Tor control port answers"):
        Tor(free_port())


@pytest.fixture
def real_tor(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """(control port, SOCKS port) of a Tor that talks to nobody."""
    hashed = subprocess.run([tor, "--quiet", "--hash-password", PASSWORD], capture_output=True, text=True, check=True)
    control, socks = free_port(), free_port()
    config = tmp_path / "torrc"
    config.write_text(
        f"DataDirectory {tmp_path / 'tor'}\nControlPort 127.0.0.1:{control}\nSocksPort 127.0.0.1:{socks}\n"
        f"HashedControlPassword {hashed.stdout.split()[-1]}\nDisableNetwork 1\nAvoidDiskWrites 1\n"
    )
    with running([tor, "-f", str(config), "--quiet"], control):
        yield control, socks


@needs_tor
def test_the_real_control_port_authenticates_and_gives_a_circuit(real_tor: tuple[int, int]):
    slept: list[float] = []
    with Tor(real_tor[0], password=PASSWORD, sleep=slept.append) as control:
        assert control.version().startswith("0.4")
        control.fresh_circuit()
        control.fresh_circuit()
    assert len(slept) == 1
    with pytest.raises(EgressError, match="refused the password"):
        Tor(real_tor[0], password="wrong")


@needs_tor
@needs_privoxy
def test_with_the_network_disabled_nothing_gets_out_through_privoxy_and_tor(
    service: EmulatorThread, tmp_path: Path, real_tor: tuple[int, int]
):
    command, port = through_privoxy(tmp_path, real_tor[1])
    with running(command, port), pytest.raises(Exception, match=r"network|server_error|page for people"):
        look_up(service, Egress.parse(f"http://127.0.0.1:{port}"))
    assert service.hits()["totals"]["requests"] == 0
