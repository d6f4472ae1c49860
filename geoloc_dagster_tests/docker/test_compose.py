"""Production in containers, as far as that can be seen without an engine: the files are valid and keep to the policy.

`python -m geoloc_dagster_tests.docker.test_compose` (`make docs`) writes again what comes from the templates of `geoloc stack`.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from geoloc_dagster.stack import configuration, secrets
from geoloc_dagster.stack.folder import StackOptions
from geoloc_dagster.stack.services import ORDER

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
COMPOSE, ON_RAY = DOCKER / "compose.yaml", DOCKER / "compose.ray.yaml"
BIN = Path(sys.executable).parent
DOCKER_ONLY = {"s3"}  # where MLflow keeps files; one machine has a folder for that
ADDED = {"tor"}  # by their profiles
RAY_JOBS = "http://ray:8265"
CODE = {"code": "cpu", "code-browser": "browser", "code-gpu": "gpu"}
SECRET = re.compile(r"(?i)(password|passwd|secret|token|api_?key|access_key)")


def compose(path: Path = COMPOSE) -> dict[str, Any]:
    """The file with its anchors and merges resolved."""
    return yaml.safe_load(path.read_text())


SERVICES: dict[str, dict[str, Any]] = compose()["services"]
RAY_SERVICES: dict[str, dict[str, Any]] = compose(ON_RAY)["services"]
RAY_ONLY = {name: service for name, service in RAY_SERVICES.items() if name not in SERVICES}


def rendered() -> dict[Path, str]:
    """What the templates of `geoloc stack` become for containers."""
    database = {
        "DATABASE_HOST": "postgres",
        "DATABASE_PORT": 5432,
        "PASSFILE": "/tmp/dagster.pgpass",
        "STORAGE": "/var/lib/dagster",
    }
    places = {name: str(value) for name, value in compose()["x-code"]["environment"].items()}
    on_ray = configuration.dagster_yaml(StackOptions(ray=RAY_JOBS), database, {**places, "GEOLOC_ENGINE": "ray"})
    code = {"CODE_HOST": "code", "CODE_PORT": 4000, "REGION": "region"}
    return {
        DOCKER / "dagster.yaml": configuration.dagster_yaml(StackOptions(), database, {}),
        DOCKER / "dagster-ray.yaml": on_ray,
        DOCKER / "workspace.yaml": configuration.fill_in("workspace.yaml", code),
    }


def test_containers_and_processes_are_the_same_services() -> None:
    default = {name for name, service in SERVICES.items() if set(service.get("profiles", ["cpu"])) & {"cpu"}}
    assert default - DOCKER_ONLY == set(ORDER)
    assert {name: SERVICES[name]["profiles"] for name in CODE} == {name: [profile] for name, profile in CODE.items()}
    assert {name: SERVICES[name]["profiles"] for name in ADDED} == {name: [name] for name in ADDED}
    assert "COMPOSE_PROFILES=cpu" in (DOCKER / ".env").read_text()


def test_containers_and_processes_are_configured_by_the_same_templates() -> None:
    for path, text in rendered().items():
        assert path.read_text() == text, f"{path.name}: run `make docs`"
    assert compose()["configs"]["proxy"]["file"] == "../geoloc_dagster/stack/templates/proxy.conf.template"
    template = (DOCKER / compose()["configs"]["proxy"]["file"]).read_text()
    needed = set(re.findall(r"\$\{([A-Z_]+)\}", template))
    assert needed == set(SERVICES["proxy"]["environment"])


@pytest.mark.parametrize("name", sorted([*SERVICES, *RAY_ONLY]))
def test_every_service_keeps_to_the_policy(name: str) -> None:
    service = (SERVICES | RAY_ONLY)[name]
    uid, _, gid = str(service["user"]).partition(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"cap_add", "privileged", "devices", "network_mode", "pid", "ipc"} & set(service)
    assert service["init"] is True
    assert service["restart"] == "unless-stopped"
    assert {"test", "interval", "timeout", "retries"} <= set(service["healthcheck"])
    assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert re.fullmatch(r"[a-z0-9./-]+:\d[\w.-]*", service["image"]), "an image has a version, and not `latest`"
    assert not [volume for volume in service.get("volumes", []) if "docker.sock" in str(volume)]
    assert "inside" in service["networks"]


def test_only_the_proxy_is_published_and_only_on_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["proxy"]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published["proxy"])
    assert compose()["networks"]["inside"] == {"internal": True}
    outside = {name for name, service in SERVICES.items() if "outside" in service["networks"]}
    assert outside == {"proxy", "tor", *CODE}


def test_ray_is_reached_from_the_inner_network_only_and_with_a_token() -> None:
    assert set(RAY_ONLY) == {"ray", "ray-node"}
    assert set(RAY_SERVICES) - set(RAY_ONLY) == {"daemon", "webserver"}, "what hands runs to Ray has it installed"
    for name, service in RAY_SERVICES.items():
        assert "ports" not in service
        assert service.get("networks", ["inside"]) == ["inside"]
        assert service["image"] == "geoloc/ray:0.1.0"
        assert service["environment"]["RAY_AUTH_MODE"] == "token", name
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
        assert {"ray_token", "dagster_pgpass"} <= set(service["secrets"])
    assert compose(ON_RAY)["configs"] == {"dagster": {"file": "dagster-ray.yaml"}}
    for service in RAY_ONLY.values():
        assert set(compose()["x-code"]["volumes"]) == set(service["volumes"]), "the same data at the same paths"


def test_secrets_come_from_files_only() -> None:
    for name, service in [*SERVICES.items(), *RAY_SERVICES.items()]:
        for variable, value in service.get("environment", {}).items():
            assert not SECRET.search(variable) or str(value).startswith("/run/secrets/") or variable == "RAY_AUTH_MODE", (
                name,
                variable,
            )
        for secret in service.get("secrets", []):
            assert (compose()["secrets"] | compose(ON_RAY)["secrets"])[secret] == {"file": f"secrets/{secret}"}
    image = (DOCKER / "Dockerfile").read_text()
    assert not re.search(r"(?im)^(ARG|ENV) .*(password|secret|token)", image)
    assert "docker/secrets" not in (ROOT / ".dockerignore").read_text()
    assert (ROOT / ".dockerignore").read_text().startswith("*\n"), "an image holds only what is named"


def test_every_base_image_is_pinned() -> None:
    image = (DOCKER / "Dockerfile").read_text()
    bases = dict(re.findall(r"(?m)^ARG (\w+)=(\S+)$", image))
    assert set(bases) == {"PYTHON", "POSTGRES", "SEAWEEDFS", "DEBIAN"}
    assert all(re.fullmatch(r"[a-z0-9./-]+:\d[\w.-]*", base) for base in bases.values())
    stages = set(re.findall(r"(?m)^FROM \S+ AS (\S+)$", image))
    for base in re.findall(r"(?m)^FROM (\S+)", image):
        assert base in stages or base.strip("${}") in bases
    targets = {one["build"]["target"] for one in [*SERVICES.values(), *RAY_SERVICES.values()] if "build" in one}
    assert targets <= stages


@pytest.mark.parametrize("target", ["base", "code-browser", "tor", "postgres", "s3"])
def test_no_image_ends_as_root(target: str) -> None:
    stage = re.split(rf"(?m)^FROM \S+ AS {target}$", (DOCKER / "Dockerfile").read_text())[1].split("\nFROM ")[0]
    users = re.findall(r"(?m)^USER (\S+)", stage)
    assert users, target
    assert not users[-1].startswith(("root", "0"))


def test_the_files_are_valid() -> None:
    def ok(*command: str | Path) -> None:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stdout + done.stderr

    ok(BIN / "hadolint", DOCKER / "Dockerfile")
    ok(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE, ON_RAY)
    rules = "{extends: default, rules: {line-length: {max: 130}, document-start: disable, braces: {max-spaces-inside: 0}, "
    rules += "comments: {min-spaces-from-content: 2}, truthy: {check-keys: false}, octal-values: disable}}"
    ok(BIN / "yamllint", "--strict", "-d", rules, COMPOSE, ON_RAY, *(path for path in rendered() if path.suffix == ".yaml"))
    for script in DOCKER.glob("*.sh"):
        ok("sh", "-n", script)
        assert script.stat().st_mode & stat.S_IXUSR


def dangling(file: dict[str, Any]) -> list[str]:
    """What services name and nobody defines, and what is defined and named by none; the schema knows neither."""
    used: dict[str, set[str]] = {kind: set() for kind in ("networks", "secrets", "configs", "volumes")}
    found: list[str] = []
    for name, service in file["services"].items():
        used["networks"] |= set(service.get("networks", []))
        used["secrets"] |= {one if isinstance(one, str) else one["source"] for one in service.get("secrets", [])}
        used["configs"] |= {one if isinstance(one, str) else one["source"] for one in service.get("configs", [])}
        sources = [str(volume).partition(":")[0] for volume in service.get("volumes", [])]
        used["volumes"] |= {source for source in sources if re.fullmatch(r"[a-z][a-z0-9_]*", source)}
        found += [f"{name} depends on {other}" for other in service.get("depends_on", {}) if other not in file["services"]]
        own, others = set(service.get("profiles", [])), service.get("depends_on", {}).items()
        for other, how in others:
            profiles = set(file["services"].get(other, {}).get("profiles", []))
            if profiles and not own & profiles and how.get("required", True):
                found.append(f"{name} needs {other}, which is not there without a profile")
    for kind, names in used.items():
        found += [f"{kind}: {name} is named and not defined" for name in names - set(file[kind])]
        found += [f"{kind}: {name} is defined and not named" for name in set(file[kind]) - names]
    return found


def test_whatever_a_service_names_is_defined_and_the_other_way_round() -> None:
    assert dangling(compose()) == []
    assert all((DOCKER / config["file"]).is_file() for config in compose()["configs"].values())
    for break_it in (
        lambda file: file["services"]["daemon"]["depends_on"].update(databse={"condition": "service_healthy"}),
        lambda file: file["services"]["webserver"]["secrets"].append("dagster_passfile"),
        lambda file: file["services"]["mlflow"].update(networks=["insid"]),
        lambda file: file["services"]["s3"]["volumes"].append("object:/data"),
        lambda file: file["configs"].pop("roles"),
        lambda file: file["secrets"].update(spare={"file": "secrets/spare"}),
        lambda file: file["services"]["proxy"]["depends_on"].update(ray={"condition": "service_healthy"}),
    ):
        broken = copy.deepcopy(compose())
        break_it(broken)
        assert dangling(broken), "would be seen"


def compose_program() -> list[str] | None:
    """How compose is called here, as a plug-in of docker or by itself; neither needs an engine to read a file."""
    for command in (["docker", "compose"], ["docker-compose"], ["/usr/libexec/docker/cli-plugins/docker-compose"]):
        if shutil.which(command[0]) is not None:
            said = subprocess.run([*command, "version"], capture_output=True, text=True, check=False)
            if said.returncode == 0 and "version 1." not in said.stdout:
                return command
    return None


def test_docker_itself_takes_the_compose_file(tmp_path: Path) -> None:
    program = compose_program()
    if program is None:
        pytest.skip("docker compose is not installed")
    shutil.copytree(ROOT / "docker", tmp_path / "docker")
    subprocess.run([tmp_path / "docker" / "secrets.sh"], check=True, capture_output=True)
    for profiles, files in (("cpu", []), ("browser,tor", []), ("gpu", []), ("cpu", ["compose.ray.yaml"])):
        command = [
            *program,
            "--project-directory",
            str(tmp_path / "docker"),
            "-f",
            str(tmp_path / "docker" / "compose.yaml"),
            *(part for file in files for part in ("-f", str(tmp_path / "docker" / file))),
        ]
        done = subprocess.run(
            [*command, "config", "-q"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "COMPOSE_PROFILES": profiles},
        )
        assert done.returncode == 0, done.stderr


def test_the_script_makes_secrets_once_and_says_none_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    said = [subprocess.run([DOCKER / "secrets.sh", folder], check=True, capture_output=True, text=True).stdout for _ in range(2)]
    kept = {path.name: path.read_text().strip() for path in folder.iterdir()}
    assert {
        secret.split("/")[1]
        for secret in (one["file"] for path in (COMPOSE, ON_RAY) for one in compose(path)["secrets"].values())
    } <= set(kept)
    assert folder.stat().st_mode & 0o777 == 0o700
    values = {kept["postgres_password"], kept["s3_key"], kept["ray_token"], kept["login"].partition(":")[2]}
    values |= {kept[f"{role}_pgpass"].rpartition(":")[2] for role in secrets.ROLES}
    assert len(values) == 6
    assert all(len(value) == 48 for value in values)
    assert not [value for value in values for text in said if value in text]
    salt = kept["htpasswd"].split("$")[2]
    again = subprocess.run(
        ["openssl", "passwd", "-apr1", "-salt", salt, "-stdin"],
        input=kept["login"].partition(":")[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert kept["htpasswd"] == f"geoloc:{again.stdout.strip()}"


def test_the_entrypoint_hands_libpq_private_files(tmp_path: Path) -> None:
    script = (DOCKER / "entrypoint.sh").read_text().replace('"/tmp/', f'"{tmp_path}/').replace("/run/secrets", f"{tmp_path}/in")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "dagster_pgpass").write_text("*:*:dagster:dagster:sesame\n")
    done = subprocess.run(["sh", "-c", script, "entrypoint", "echo", "started"], capture_output=True, text=True, check=True)
    assert done.stdout == "started\n"
    assert (tmp_path / "dagster.pgpass").read_text() == "*:*:dagster:dagster:sesame\n"
    assert (tmp_path / "dagster.pgpass").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "mlflow.pgpass").exists()


if __name__ == "__main__":
    for target, content in rendered().items():
        target.write_text(content)
