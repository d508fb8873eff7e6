"""All processes → one page, in the text format that the reader asks for.

Making a page takes a few milliseconds for each worker. So the service first carries over what was
counted (`flush_all`, in the thread of the event loop) and then makes the page in another thread
(`render`), while requests go on. A page has no exemplars: prometheus_client keeps none in its
multi-process files.
"""

import gzip
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from metrics import instruments, multiproc_dir
from metrics.observer import flush_all

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def page(accept: str | None, *, now: float | None = None) -> tuple[bytes, str]:
    """`render` with all that was counted up to now; call it in the thread of the event loop."""
    flush_all()
    return render(accept, now=now)


def render(accept: str | None, *, now: float | None = None) -> tuple[bytes, str]:
    """The page and its content type; may be called in any thread.

    Sums the files of all processes when there is a metrics directory (ours, or one that the
    environment names), else shows this process. `accept` is the request's Accept header; `now` the
    time of day in seconds since the epoch (default: the clock's).
    """
    directory = os.environ.get(multiproc_dir.ENVIRONMENT)
    families = _shared(Path(directory)) if directory else list(REGISTRY.collect())
    families += _derived(families, time.time() if now is None else now)
    families.sort(key=lambda family: family.name)
    if _prefers_openmetrics(accept or ""):
        body: bytes = generate_openmetrics(_Families(families))  # type: ignore[no-untyped-call]
        return body, OPENMETRICS
    return generate_latest(_Families(families)), TEXT


def encode(body: bytes, accept_encoding: str | None) -> tuple[bytes, dict[str, str]]:
    """The page as it is sent to who accepts these content codings, and the header fields that say
    so (RFC 9110 section 12.5.3).
    """
    varies = {"vary": "accept, accept-encoding"}
    if _choices(accept_encoding or "", ("gzip",))["gzip"] == 0:
        return body, varies
    # Level 1: a page has little but repetition in it, which the first level finds.
    return gzip.compress(body, compresslevel=1, mtime=0), varies | {"content-encoding": "gzip"}


def parse(text: str) -> Iterator[Sample]:
    """The samples of a page in the plain text format, for whoever shows them elsewhere."""
    for family in text_string_to_metric_families(text):
        yield from family.samples


def _shared(directory: Path) -> list[Metric]:
    """What all processes have written."""
    # A worker that is starting makes its file first and fills it then; an empty one cannot be read.
    files = [str(file) for file in directory.glob("*.db") if _size(file)]
    gauges = [file for file in files if Path(file).name.startswith("gauge_")]
    families = [
        *MultiProcessCollector.merge(gauges),  # type: ignore[no-untyped-call]
        *_summed(file for file in files if file not in gauges),
    ]
    restarts = multiproc_dir.restarts(directory)
    if restarts is not None:
        families.append(CounterMetricFamily(*instruments.WORKER_RESTARTS, value=restarts))
    return families


def _summed(files: Iterable[str]) -> Iterable[Metric]:
    """The counters and histograms in these files.

    All processes write the same series, so they are added up by their names as these are written:
    each is then read once, and not once for every process. That takes a third less than `merge`.
    """
    totals: dict[str, defaultdict[str, float]] = {}
    for file in files:
        kind = Path(file).name.partition("_")[0]
        total = totals.setdefault(kind, defaultdict(float))
        for key, value, _, _ in MmapedDict.read_all_values_from_file(file):  # type: ignore[no-untyped-call]
            total[key] += value
    families: dict[str, Metric] = {}
    for kind, total in totals.items():
        for key, value in total.items():
            name, sample, labels, text = json.loads(key)
            family = families.get(name)
            if family is None:
                family = families[name] = Metric(name, text, kind)
            pairs: Any = tuple(sorted(labels.items()))  # as `accumulate` wants them
            family.add_sample(sample, pairs, value)
    accumulate = MultiProcessCollector._accumulate_metrics  # noqa: SLF001 - as its `merge` does
    return accumulate(families, accumulate=True)  # type: ignore[no-untyped-call,no-any-return]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # the gauges of a worker that has just died
        return 0


def _derived(families: Iterable[Metric], now: float) -> Iterator[Metric]:
    """Times grow and run out while nobody writes, so they are worked out when somebody reads."""
    by_name = {family.name: family for family in families}

    def values(gauge: Gauge) -> dict[str, float]:
        [described] = gauge.describe()
        family = by_name.get(described.name)
        return {each.labels["issuer"]: each.value for each in family.samples} if family else {}

    def since(gauge: Gauge) -> dict[str, float]:
        return {name: max(0.0, now - at) for name, at in values(gauge).items()}

    oldest = values(instruments.KEYSET_VERSION)
    newest = oldest | values(instruments.KEYSET_NEWEST)
    for derived, by_issuer in (
        (instruments.KEYSET_AGE, since(instruments.KEYSET_FETCHED)),
        (instruments.REVOCATIONS_AGE, since(instruments.REVOCATIONS_READ)),
        (
            instruments.KEYSET_UNTIL_STALE,
            {name: at - now for name, at in values(instruments.KEYSET_FRESH_UNTIL).items()},
        ),
        (
            instruments.KEYSET_UNTIL_REFUSAL,
            {name: at - now for name, at in values(instruments.KEYSET_STALE_UNTIL).items()},
        ),
        (
            instruments.KEYSET_SKEW,
            {name: newest[name] - version for name, version in oldest.items()},
        ),
    ):
        gauge = GaugeMetricFamily(derived.name, derived.text, labels=("issuer",))
        for name, value in by_issuer.items():
            gauge.add_metric([name], value)
        yield gauge


def _prefers_openmetrics(accept: str) -> bool:
    """The greater weight wins; we would rather send OpenMetrics."""
    openmetrics, plain = "application/openmetrics-text", "text/plain"
    weights = _choices(accept, (openmetrics, plain))
    return 0 < weights[openmetrics] >= weights[plain]


def _choices(field: str, names: Iterable[str]) -> dict[str, float]:
    """The weight of each name in an Accept field, 0 if it is not there (RFC 9110 section 12)."""
    weights = dict.fromkeys(names, 0.0)
    for choice in field.lower().split(","):
        name, *parameters = (part.strip() for part in choice.split(";"))
        if name in weights:
            weights[name] = max(weights[name], _weight(parameters))
    return weights


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
