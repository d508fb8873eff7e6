"""Writes the two Grafana dashboards, so that what they ask can be read, compared and tested.

    .venv/bin/python ops/grafana/dashboards.py          writes dashboards/*.json
    .venv/bin/python ops/grafana/dashboards.py --check  says which are out of date (exit code 1)

For whoever changes a panel. To only use the dashboards, take the JSON files: they need Grafana 11
or newer, a Prometheus that scrapes keycache and, for the objectives, ops/prometheus/rules.yml.

`overview` answers whether users are served, and how fast; `keys` why not. Each panel is one
question (its title), with what to think of the answer in its description.
"""

import json
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
)

FOLDER = Path(__file__).with_name("dashboards")
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
# Every query is for the hosts and issuers chosen above the panels.
HOST = 'job="$job",instance=~"$instance"'
ISSUER = f'{HOST},issuer=~"$issuer"'
RATE = "[$__rate_interval]"


class Query(NamedTuple):
    """PromQL, and how a series is called."""

    expr: str
    legend: str


class Chart(NamedTuple):
    """One question over time. `unit` is one of Grafana's."""

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    width: int = 8  # of 24


class Number(NamedTuple):
    """One question with one number for an answer, `worst` being the bad end.

    bad: from this value on it is red; below (or above, when smaller is worse) it is green.
    """

    title: str
    description: str
    unit: str
    expr: str
    bad: float
    smaller_is_worse: bool = False


class Section(NamedTuple):
    """A row of panels under a heading."""

    title: str
    panels: Sequence[Chart | Number]


def by(labels: str, metric: str, selector: str = ISSUER) -> Query:
    """How often a second, for each value of these labels."""
    legend = " ".join(f"{{{{{label}}}}}" for label in labels.split(","))
    return Query(f"sum by ({labels}) (rate({metric}{{{selector}}}{RATE}))", legend)


def quantiles(metric: str, label: str, selector: str = HOST) -> list[Query]:
    """The median and the slowest hundredth of a histogram, for each value of a label."""
    rates = f"sum by (le,{label}) (rate({metric}_bucket{{{selector}}}{RATE}))"
    return [
        Query(f"histogram_quantile({share}, {rates})", f"{{{{{label}}}}} {name}")
        for share, name in ((0.5, "median"), (0.99, "99 %"))
    ]


OVERVIEW = [
    Section(
        "Are users served?",
        [
            Number(
                "Available",
                "Tokens decided about, of those not rejected, in the time chosen. 99.9 % is"
                " promised over 30 days.",
                "percentunit",
                f'1 - sum(increase(keycache_verifications_total{{{ISSUER},outcome="unavailable"}}'
                "[$__range])) / (sum(increase(keycache_verifications_total"
                f'{{{ISSUER},outcome!="rejected"}}[$__range])) > 0)',
                0.999,
                smaller_is_worse=True,
            ),
            Number(
                "Error budget burnt",
                "How many times too fast, in the last hour: 14.4 takes 2 % of the month's budget.",
                "none",
                'job:keycache_unavailable:ratio_rate1h{job="$job"} / 0.001',
                1,
            ),
            Number(
                "Tokens a second",
                "Presented to all hosts chosen.",
                "reqps",
                f"sum(rate(keycache_verifications_total{{{ISSUER}}}{RATE}))",
                1e9,
            ),
            Number(
                "Hosts up",
                "Share of the targets that answer Prometheus.",
                "percentunit",
                'avg(up{job="$job",instance=~"$instance"})',
                1,
                smaller_is_worse=True,
            ),
            Number(
                "Soonest refusal",
                "Until the first worker may no longer use the keys it holds.",
                "s",
                f"min(keycache_keyset_seconds_until_refusal{{{ISSUER}}})",
                900,
                smaller_is_worse=True,
            ),
            Number(
                "Workers that died",
                "In the time chosen.",
                "none",
                f"sum(increase(keycache_worker_restarts_total{{{HOST}}}[$__range]))",
                1,
            ),
        ],
    ),
    Section(
        "What became of the tokens?",
        [
            Chart(
                "Outcomes",
                "Unavailable is our fault or an issuer's; rejected is the sender's.",
                "reqps",
                [by("outcome", "keycache_verifications_total")],
            ),
            Chart(
                "Why are tokens refused?",
                "By reason: the words of the answer and of the log.",
                "reqps",
                [by("reason", "keycache_verification_failures_total")],
            ),
            Chart(
                "Why are requests refused?",
                "Besides bad tokens: none, two of them, one that does not allow this, no rule.",
                "reqps",
                [by("reason", "keycache_refusals_total")],
            ),
            Chart(
                "Which issuer?",
                "unknown: the token names none of ours, or was refused before that was read.",
                "reqps",
                [by("issuer", "keycache_verifications_total", HOST)],
            ),
        ],
    ),
    Section(
        "How fast?",
        [
            Chart(
                "Time to decide",
                "cached: this very token was seen before; memory: its key was known; waited: the"
                " issuer was asked.",
                "s",
                quantiles("keycache_verification_duration_seconds", "path"),
            ),
            Chart(
                "Time in each stage",
                "Of one in 64 accepted tokens that were not cached; the signature takes most.",
                "s",
                quantiles("keycache_verification_stage_duration_seconds", "stage"),
            ),
            Chart(
                "Who had the answer?",
                "Look-ups by tier. In a quiet fleet nearly all are token_cache and memory.",
                "reqps",
                [by("tier", "keycache_lookups_total")],
            ),
            Chart(
                "Who waits?",
                "Requests that wait for an issuer now. At KEYCACHE_WAITERS a worker, the next get"
                " 503.",
                "none",
                [Query(f"keycache_waiters{{{ISSUER}}}", "{{instance}} {{issuer}}")],
            ),
            Chart(
                "Workers",
                "Living processes; fewer than KEYCACHE_WORKERS for long is a crash loop.",
                "none",
                [Query(f"keycache_workers{{{HOST}}}", "{{instance}}")],
            ),
            Chart(
                "Budgets burnt",
                "Multiples of the rate that uses up a month's budget in a month; 1 is sustainable.",
                "none",
                [
                    Query(
                        f'job:keycache_{what}:ratio_rate{window}{{job="$job"}} / {budget}',
                        f"{name}, {window}",
                    )
                    for what, name, budget in (
                        ("unavailable", "availability", 0.001),
                        ("slow", "latency", 0.01),
                    )
                    for window in ("1h", "6h")
                ],
            ),
        ],
    ),
]

KEYS = [
    Section(
        "Which keys are held?",
        [
            Chart(
                "Until stale",
                "Saw-teeth that turn at a fifth of the TTL are healthy; below 0 the issuer has"
                " not answered.",
                "s",
                [
                    Query(
                        f"keycache_keyset_seconds_until_stale{{{ISSUER}}}",
                        "{{instance}} {{issuer}}",
                    )
                ],
            ),
            Chart(
                "Until refusal",
                "At 0 every token of the issuer is answered 503.",
                "s",
                [
                    Query(
                        f"keycache_keyset_seconds_until_refusal{{{ISSUER}}}",
                        "{{instance}} {{issuer}}",
                    )
                ],
            ),
            Chart(
                "Age",
                "Since the key set was fetched; of the worker with the oldest one.",
                "s",
                [
                    Query(
                        f"keycache_keyset_age_seconds{{{ISSUER}}}",
                        "{{instance}} {{issuer}}",
                    )
                ],
            ),
            Chart(
                "Keys",
                "A rotation shows as one more, then one fewer. Skipped ones are refused:"
                " `keycache keys` says why.",
                "none",
                [
                    Query(f"keycache_keyset_keys{{{ISSUER}}}", "{{instance}} {{issuer}} usable"),
                    Query(
                        f"sum by (instance,issuer) (keycache_keyset_skipped{{{ISSUER}}})",
                        "{{instance}} {{issuer}} skipped",
                    ),
                ],
            ),
            Chart(
                "Workers behind",
                "Between the newest and the oldest version on a host: above 0 for longer than"
                " KEYCACHE_POLL, a worker does not hear of new keys.",
                "ms",
                [
                    Query(
                        f"keycache_keyset_version_skew{{{ISSUER}}}",
                        "{{instance}} {{issuer}}",
                    )
                ],
            ),
            Chart(
                "Version",
                "The moment at which the set was asked for. Hosts that share a Redis show the same"
                " line.",
                "dateTimeAsIso",
                [
                    Query(
                        f"keycache_keyset_newest_version{{{ISSUER}}}",
                        "{{instance}} {{issuer}} newest",
                    ),
                    Query(f"keycache_keyset_version{{{ISSUER}}}", "{{instance}} {{issuer}} oldest"),
                ],
            ),
        ],
    ),
    Section(
        "Do refreshes work?",
        [
            Chart(
                "Refreshes",
                "By why they were wanted and how they ended. unknown_kid exhausted: a flood.",
                "ops",
                [by("cause,result", "keycache_refreshes_total")],
            ),
            Chart(
                "Why did they fail?",
                "By what was wrong with the issuer or its answer.",
                "ops",
                [by("issuer,code", "keycache_refresh_failures_total")],
            ),
            Chart(
                "Requests to issuers",
                "By status; one fetch serves the whole fleet.",
                "reqps",
                [by("issuer,status", "keycache_jwks_fetches_total")],
            ),
            Chart(
                "Time to refresh",
                "Of those that asked the issuer. Near KEYCACHE_WAIT, requests with new kids get"
                " 503.",
                "s",
                quantiles("keycache_refresh_duration_seconds", "issuer", ISSUER),
            ),
            Chart(
                "Bytes from issuers",
                "Unchanged key sets cost none (304).",
                "Bps",
                [by("issuer", "keycache_jwks_bytes_total")],
            ),
            Chart(
                "Who may fetch?",
                "Answers to workers that asked for the lease.",
                "ops",
                [by("outcome", "keycache_lease_requests_total")],
            ),
            Chart(
                "Forced refreshes left",
                "What strangers may still cause, when it was last asked for. Always 0: a flood.",
                "none",
                [Query(f"keycache_forced_refresh_budget{{{ISSUER}}}", "{{instance}} {{issuer}}")],
            ),
            Chart(
                "Unknown kids remembered",
                "At KEYCACHE_NEGATIVE_SIZE the oldest are forgotten.",
                "none",
                [Query(f"keycache_negative_kids{{{ISSUER}}}", "{{instance}} {{issuer}}")],
            ),
            Chart(
                "Tokens revoked",
                "Revocations in force (`keycache revoke --list`), of the worker that knows fewest.",
                "none",
                [Query(f"keycache_revocations{{{ISSUER}}}", "{{instance}} {{issuer}}")],
            ),
            Chart(
                "Age of what is known to be revoked",
                "Grows while Redis does not answer; KEYCACHE_STALE after two lost polls: 503.",
                "s",
                [Query(f"keycache_revocations_age_seconds{{{ISSUER}}}", "{{instance}} {{issuer}}")],
            ),
            Chart(
                "Unusable keys",
                "By why; `keycache keys` lists them.",
                "none",
                [
                    Query(
                        f"max by (issuer,reason) (keycache_keyset_skipped{{{ISSUER}}})",
                        "{{issuer}} {{reason}}",
                    )
                ],
            ),
        ],
    ),
    Section(
        "Is what it stands on well?",
        [
            Chart(
                "Redis up",
                "0 when one worker of the host cannot reach it.",
                "none",
                [Query(f"keycache_redis_up{{{HOST}}}", "{{instance}}")],
            ),
            Chart(
                "Time to ask Redis",
                "Never part of a request with a known key.",
                "s",
                quantiles("keycache_redis_duration_seconds", "instance"),
            ),
            Chart(
                "Calls to Redis that failed",
                "By how.",
                "ops",
                [by("code", "keycache_redis_errors_total", HOST)],
            ),
            Chart(
                "Records refused",
                "What was in Redis, or in the snapshot, and was not ours or not whole.",
                "ops",
                [
                    by("code", "keycache_records_refused_total"),
                    Query(
                        f"sum(rate(keycache_snapshot_failures_total{{{ISSUER}}}{RATE}))",
                        "snapshot unusable",
                    ),
                ],
            ),
            Chart(
                "Workers that died",
                "Each was replaced; each cut the requests it was answering.",
                "none",
                [
                    Query(
                        f"increase(keycache_worker_restarts_total{{{HOST}}}{RATE})", "{{instance}}"
                    )
                ],
            ),
        ],
    ),
]


def target(query: Query, number: int) -> prometheus.Dataquery:
    """One query of a panel."""
    return (
        prometheus.Dataquery()
        .expr(query.expr)
        .legend_format(query.legend)
        .ref_id(chr(ord("A") + number))
    )


def chart(spec: Chart) -> timeseries.Panel:
    """A panel with lines."""
    panel = (
        timeseries.Panel()
        .title(spec.title)
        .description(spec.description)
        .datasource(SOURCE)
        .unit(spec.unit)
        .span(spec.width)
        .height(8)
        .fill_opacity(8)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    for number, query in enumerate(spec.queries):
        panel.with_target(target(query, number))
    return panel


def number(spec: Number) -> stat.Panel:
    """A panel with one number, red when it is bad."""
    good, bad = ("red", "green") if spec.smaller_is_worse else ("green", "red")
    steps = [Threshold(value=None, color=good), Threshold(value=spec.bad, color=bad)]
    return (
        stat.Panel()
        .title(spec.title)
        .description(spec.description)
        .datasource(SOURCE)
        .unit(spec.unit)
        .span(4)
        .height(4)
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .with_target(target(Query(spec.expr, spec.title), 0))
    )


def choice(name: str, query: str) -> dashboard.QueryVariable:
    """A list above the panels, of the values that a label has; all are chosen at first."""
    return (
        dashboard.QueryVariable(name)
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def make(uid: str, title: str, description: str, sections: Sequence[Section]) -> str:
    """The JSON of a dashboard."""
    builder = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["keycache"])
        .time("now-3h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            dashboard.DashboardLink("keycache")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["keycache"])
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("job")
            .datasource(SOURCE)
            .query("label_values(keycache_build_info, job)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
        .with_variable(
            choice("instance", 'label_values(keycache_build_info{job="$job"}, instance)')
        )
        .with_variable(
            choice("issuer", 'label_values(keycache_verifications_total{job="$job"}, issuer)')
        )
        .annotation(
            dashboard.AnnotationQuery()
            .name("Alerts")
            .datasource(SOURCE)
            .enable(True)
            .icon_color("red")
            .expr('ALERTS{alertname=~"Keycache.*",alertstate="firing"}')
        )
    )
    identifier = count(1)  # by which links lead to a panel
    for section in sections:
        builder.with_row(dashboard.Row(section.title).id(next(identifier)))
        for spec in section.panels:
            panel = chart(spec) if isinstance(spec, Chart) else number(spec)
            builder.with_panel(panel.id(next(identifier)))
    return json.dumps(builder.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def dashboards() -> dict[str, str]:
    """Every file of dashboards/ and what it should hold."""
    return {
        "overview.json": make(
            "keycache-overview",
            "keycache: overview",
            "Are users served, and how fast? Begin here.",
            OVERVIEW,
        ),
        "keys.json": make(
            "keycache-keys",
            "keycache: keys",
            "What is held, does refreshing work, and what it stands on.",
            KEYS,
        ),
    }


def main() -> int:
    """Write or check; see above."""
    stale = []
    for name, text in dashboards().items():
        path = FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'is out of date' if '--check' in sys.argv else 'written'}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    raise SystemExit(main())
