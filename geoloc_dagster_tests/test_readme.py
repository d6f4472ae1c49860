"""The README says what is true: its error table is `errors.py`, its commands exist.

`python -m geoloc_dagster_tests.test_readme` (`make docs`) writes the table again.
"""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from geoloc_dagster import cli, errors

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
START, END = "<!-- errors: written by `make docs` -->", "<!-- end of errors -->"


def error_classes() -> list[type[errors.GeolocError]]:
    """Every user error that the package defines, in the order of codes."""
    found = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.GeolocError)]
    return sorted((value for value in found if value is not errors.GeolocError), key=lambda value: value.code)


def error_table() -> str:
    """The catalogue as Markdown."""
    rows = [f"| {e.code} | {(e.__doc__ or '').split(chr(10))[0]} | {e.default_remedy} |" for e in error_classes()]
    return "\n".join(["| code | what it means | what to do |", "|---|---|---|", *rows])


def test_the_error_table_is_the_one_of_the_code() -> None:
    written = README.read_text().split(START)[1].split(END)[0].strip()
    assert written == error_table(), "run `make docs`"


def test_every_error_has_its_own_code_a_meaning_and_a_remedy() -> None:
    classes = error_classes()
    codes = [error.code for error in classes]
    assert len(set(codes)) == len(codes)
    for error in classes:
        assert re.fullmatch(r"GEO-[1-9]\d\d", error.code)
        assert error.default_remedy != errors.GeolocError.default_remedy, f"{error.code} needs a remedy of its own"
        assert (error.__doc__ or "").strip().endswith(".")


def groups() -> list[str]:
    """Commands that have commands of their own."""
    return [str(group.name) for group in cli.app.registered_groups]


def test_every_command_in_the_readme_exists() -> None:
    named = set(re.findall(r"^(?:\$ )?geoloc ([a-z-]+)", README.read_text(), flags=re.MULTILINE))
    named |= set(re.findall(r"`geoloc ([a-z-]+)", README.read_text()))
    known = {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    assert named
    assert named <= known | set(groups())
    assert known <= named, "a command that the README does not name"


def test_every_option_in_the_readme_exists() -> None:
    for command, options in re.findall(r"geoloc ([a-z-]+)((?: [^\s`]+)+)", README.read_text()):
        words = [command, options.split()[0]] if command in groups() else [command]
        help_text = CliRunner().invoke(cli.app, [*words, "--help"]).output
        for option in re.findall(r"--[a-z-]+", options):
            assert option in help_text, f"geoloc {command} has no {option}"


def test_every_make_target_in_the_readme_exists() -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", README.read_text(), flags=re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert named
    assert named <= targets


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(((?!http)[^)#]+)", README.read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


if __name__ == "__main__":
    before, rest = README.read_text().split(START)
    README.write_text(f"{before}{START}\n{error_table()}\n{END}{rest.split(END)[1]}")
