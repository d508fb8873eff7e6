"""Docs that can fail: tables come from the code, links lead somewhere, commands exist."""

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from app.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "ops/README.md")


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs", ROOT / "ops" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", DOCUMENTS)
def test_tables_say_what_the_code_says(docs: ModuleType, name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text == docs.written(text), "run ops/docs.py"


def test_every_table_stands_in_a_document(docs: ModuleType) -> None:
    everything = "".join((ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS)
    assert [] == [name for name in docs.TABLES if f"<!-- end of {name} -->" not in everything]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_in_the_docs_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    used = set(re.findall(r"(?:^|\s|\()keycache ([a-z-]+)", lines))
    assert used
    assert set() == used - set(COMMANDS)
    scripts = set(re.findall(r"(?<![\w/])(?:\./)?(ops/\w+\.(?:sh|py))", text))
    assert [] == [script for script in scripts if not (ROOT / script).is_file()]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_in_the_docs_leads_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    assert [] == [link for link in links if not (ROOT / name).parent.joinpath(link).is_file()]


def test_the_files_named_in_the_picture_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    picture = re.search(r"## Where to look\n+```\n(.*?)```", text, re.DOTALL)
    assert picture is not None
    folder, missing = "", []
    for line in picture[1].splitlines():
        top = re.match(r"(\w+/)", line)
        folder = top[1] if top else folder
        names = re.findall(r"(?<![\w./])(\w+\.py|\w+/)", line.removeprefix(folder))
        missing += [
            folder + name
            for name in names
            if not (ROOT / folder / name).exists() and not (ROOT / name).exists()
        ]
    assert [] == missing


def test_the_examples_are_python() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert examples
    for example in examples:
        ast.parse(example)
