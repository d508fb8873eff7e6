"""Writes the tables of README.md and ops/README.md, and the schema of the settings' file, from the
code they speak of.

    .venv/bin/python ops/docs.py          writes them
    .venv/bin/python ops/docs.py --check  says which are out of date (exit code 1)

A table stands between `<!-- NAME: ... -->` and `<!-- end of NAME -->`.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

from app.cli.main import COMMANDS
from app.settings import SETTING_NAMES, Settings
from app.settings.schema import schema_text
from keycache.core.decision import TABLE, Known
from keycache.errors import Reason
from metrics import instruments

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "ops/README.md")
SCHEMA = "ops/keycache.schema.json"


def decision_table() -> list[str]:
    """What is done about a key: keycache/core/decision.py."""
    rows = [f"| | {' | '.join(known.value for known in Known)} |", "|---" * (len(Known) + 1) + "|"]
    for age, decisions in TABLE.items():
        cells = " | ".join(decisions[known].value for known in Known)
        rows.append(f"| {age.value} | {cells} |")
    return rows


def settings_table() -> list[str]:
    """Every setting: app/settings/fields.py."""
    rows = ["| variable | default | what and why |", "|---|---|---|"]
    for name in SETTING_NAMES:
        field = Settings.model_fields[name]
        rows.append(f"| `KEYCACHE_{name.upper()}` | {_default(name)} | {field.description} |")
    return rows


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    if field.default_factory is not None:
        return "the CPUs"
    value = field.default
    if value is None or value in ((), ""):
        return "–"
    if isinstance(value, tuple):
        return "`" + ",".join(value) + "`"
    if isinstance(value, bool):
        return "1" if value else "0"
    return f"{value:g}" if isinstance(value, float) and value < 1e5 else str(value)


def reasons_table() -> list[str]:
    """Every reason: keycache/errors.py."""
    return [", ".join(f"`{reason}`" for reason in Reason)]


def metrics_table() -> list[str]:
    """Every metric: metrics/instruments.py."""
    rows = ["| metric | labels | what |", "|---|---|---|"]
    for name, labels, text in sorted(_metrics()):
        rows.append(f"| `{name}` | {' '.join(f'`{label}`' for label in labels)} | {text} |")
    return rows


def _metrics() -> list[tuple[str, tuple[str, ...], str]]:
    found = []
    for value in (*vars(instruments).values(), instruments.redis_up()):
        if isinstance(value, Counter | Gauge | Histogram):
            [described] = value.describe()
            suffix = "_total" if described.type == "counter" else ""
            found.append((described.name + suffix, value._labelnames, described.documentation))  # noqa: SLF001
        elif isinstance(value, instruments.Derived):
            found.append((value.name, ("issuer",), value.text))
    found.append((instruments.WORKER_RESTARTS[0], (), instruments.WORKER_RESTARTS[1]))
    return found


def commands_table() -> list[str]:
    """Every command: app/cli/main.py."""
    rows = ["| command | what |", "|---|---|"]
    return rows + [f"| `keycache {name}` | {text} |" for name, text in COMMANDS.items()]


TABLES: dict[str, Callable[[], list[str]]] = {
    "decision table": decision_table,
    "settings": settings_table,
    "reasons": reasons_table,
    "metrics": metrics_table,
    "commands": commands_table,
}


def written(text: str) -> str:
    """The document with every table as the code says it now."""
    for name, table in TABLES.items():
        begin, end = rf"(<!-- {name}: [^>]* -->\n)", rf"(<!-- end of {name} -->)"
        parts = re.split(f"{begin}.*?{end}", text, flags=re.DOTALL)
        if len(parts) > 1:
            before, opening, closing, after = parts
            text = before + opening + "\n".join(table()) + "\n" + closing + after
    return text


def main() -> int:
    """Write or check; see above."""
    stale = []
    for name in (*DOCUMENTS, SCHEMA):
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        new = schema_text() if name == SCHEMA else written(text)
        if new != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(new, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'out of date' if '--check' in sys.argv else 'written'}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    raise SystemExit(main())
