"""The pages of ops/examples: one each, no longer than a page, and nothing in them leads nowhere."""

import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "ops" / "examples"
KINDS = sorted(
    folder.name
    for folder in EXAMPLES.iterdir()
    if folder.is_dir() and folder.name not in {"node_modules", "__pycache__"}
)
PAGE = 60  # lines


@pytest.fixture(params=KINDS)
def page(request: pytest.FixtureRequest) -> Path:
    return EXAMPLES / str(request.param) / "README.md"


def test_page_is_no_longer_than_a_page(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= PAGE


def test_page_says_for_whom_what_to_copy_and_how_to_run_it(page: Path) -> None:
    wanted = ("**For** ", "**Not for you** ", "## Copy\n", "## Run\n\n")
    assert [] == [word for word in wanted if word not in page.read_text()]


def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text())
    assert links
    assert [] == [link for link in links if not (page.parent / link).is_file()]


def test_every_example_is_known_to_its_operators() -> None:
    table = (EXAMPLES.parent / "README.md").read_text()
    assert [] == [kind for kind in KINDS if f"`examples/{kind}/`" not in table]
