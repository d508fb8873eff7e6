"""The command line as a process: what it lists, imports, says and exits with."""

import base64
import importlib
import subprocess
import sys

import pytest

from app.cli.main import COMMANDS


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli.main", *arguments],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_each_command_with_the_first_line_of_its_own_help(name: str) -> None:
    command = importlib.import_module(f"app.cli.{name.replace('-', '_')}").command
    assert COMMANDS[name] == command.help.splitlines()[0]


def test_version_is_printed() -> None:
    assert run("--version").stdout.startswith("keycache, version ")


def test_unknown_command_exits_2_and_says_so() -> None:
    result = run("serv")
    assert (result.returncode, "No such command 'serv'" in result.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [["seal-key"], ["--help"]])
def test_commands_that_need_no_server_import_none(arguments: list[str]) -> None:
    script = (
        "import sys, app.cli.main as m\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "try: m.main()\n"
        "finally: print(*sorted({'sanic', 'redis', 'httpx', 'rich'} & set(sys.modules)), 'end',"
        " file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert result.stderr.splitlines()[-1].strip() == "end"


def test_seal_key_prints_32_bytes_as_its_last_line() -> None:
    key = run("seal-key").stdout.splitlines()[-1]
    assert (len(key), len(base64.urlsafe_b64decode(key + "="))) == (43, 32)


def test_seal_key_prints_nothing_but_the_key_on_standard_output() -> None:
    assert len(run("seal-key").stdout.splitlines()) == 1


def test_two_seal_keys_differ() -> None:
    assert run("seal-key").stdout != run("seal-key").stdout


@pytest.mark.parametrize("name", ["warm", "keys", "check", "serve"])
def test_every_problem_of_the_settings_is_a_line_and_the_exit_code_is_2(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYCACHE_TTL", "-1")
    monkeypatch.setenv("KEYCACHE_LEEWAY", "900")
    result = run(name)
    lines = result.stderr.splitlines()
    assert (result.returncode, "Traceback" in result.stderr, len(lines) >= 2) == (2, False, True)
