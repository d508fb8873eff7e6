"""A file of settings, and what is said about it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.settings import Settings
from keycache.errors import ConfigurationError

Load = Callable[[str], Settings]
Said = Callable[[str], list[str]]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Load:
    """Loads settings from a file `k.toml` that holds this text."""

    def load(text: str) -> Settings:
        (tmp_path / "k.toml").write_text(text, encoding="utf-8")
        monkeypatch.setenv("KEYCACHE_CONFIG", str(tmp_path / "k.toml"))
        return Settings.load()

    return load


@pytest.fixture
def said(load: Load, tmp_path: Path) -> Said:
    """The problems that a file has; its directory is left out of them."""

    def said(text: str) -> list[str]:
        with pytest.raises(ConfigurationError) as refused:
            load(text)
        return [problem.replace(f"{tmp_path}/", "") for problem in refused.value.problems]

    return said
