"""All processes → one page, in the text format that the reader asks for."""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import REGISTRY, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from metrics import instruments, multiproc_dir
from metrics.observer import flush_all

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def page(accept: str | None, *, now: float | None = None) -> tuple[bytes, str]:
    """The page and its content type; call it in the thread of the event loop.

    Sums the files of all processes when there is a metrics directory (ours, or one that the
    environment names), else shows this process. `accept` is the request's Accept header; `now` the
    time of day in seconds since the epoch (default: the clock's).
    """
    flush_all()
    directory = os.environ.get(multiproc_dir.ENVIRONMENT)
    families = _shared(Path(directory)) if directory else list(REGISTRY.collect())
    families.append(_keyset_age(families, time.time() if now is None else now))
    families.sort(key=lambda family: family.name)
    if _prefers_openmetrics(accept or ""):
        body: bytes = generate_openmetrics(_Families(families))  # type: ignore[no-untyped-call]
        return body, OPENMETRICS
    return generate_latest(_Families(families)), TEXT


def parse(text: str) -> Iterator[Sample]:
    """The samples of a page in the plain text format, for whoever shows them elsewhere."""
    for family in text_string_to_metric_families(text):
        yield from family.samples


def _shared(directory: Path) -> list[Metric]:
    """What all processes have written."""
    # A worker that is starting makes its file first and fills it then; an empty one cannot be read.
    files = [str(file) for file in directory.glob("*.db") if _size(file)]
    families = list(MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call]
    restarts = multiproc_dir.restarts(directory)
    if restarts is not None:
        families.append(CounterMetricFamily(*instruments.WORKER_RESTARTS, value=restarts))
    return families


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # the gauges of a worker that has just died
        return 0


def _keyset_age(families: Iterable[Metric], now: float) -> Metric:
    """Ages grow while nobody writes, so they are computed when somebody reads."""
    name, text, label_names = instruments.KEYSET_AGE
    ages = GaugeMetricFamily(name, text, labels=label_names)
    for family in families:
        if family.name == instruments.KEYSET_FETCHED_NAME:
            for sample in family.samples:
                age = max(0.0, now - sample.value)
                ages.add_metric([sample.labels[label] for label in label_names], age)
    return ages


def _prefers_openmetrics(accept: str) -> bool:
    """RFC 9110 section 12.5.1: the greater weight wins; we would rather send OpenMetrics."""
    weights = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for choice in accept.lower().split(","):
        name, *parameters = (part.strip() for part in choice.split(";"))
        if name in weights:
            weights[name] = max(weights[name], _weight(parameters))
    return 0 < weights["application/openmetrics-text"] >= weights["text/plain"]


def _weight(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


class _Families:
    """Families already collected, as the encoders take them."""

    def __init__(self, families: list[Metric]) -> None:
        self._collected = families

    def collect(self) -> list[Metric]:
        return self._collected
