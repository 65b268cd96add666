"""The page of figures and its charts say what the files of results say."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from benchmarks import page
from benchmarks.chart import Bar, Chart
from benchmarks.systems import ALL as SYSTEMS

FILES = page.read(page.RESULTS)

RUN: dict[str, Any] = {
    "measure": "throughput",
    "machine": {
        "cores": 2,
        "python": "3.11.7",
        "redis_server": "valkey 9.1.2",
        "postgres": "18.6, fsync on",
        "packages": {"celery": "5.7.0", "django": "5.2.19", "jobsite": "this checkout"},
    },
    "medians": {
        "celery": {
            "rate": 1663.4,
            "cpu": 589.2,
            "commands": 9.0,
            "fill_rate": 3279.0,
            "kept": None,
        },
        "jobsite": {
            "rate": 76925.0,
            "cpu": 18.3,
            "commands": 0.031,
            "fill_rate": 9e4,
            "kept": None,
        },
        "jobsite-postgres": {
            "rate": 26383.0,
            "cpu": 38.0,
            "commands": 1.0,
            "fill_rate": 9e4,
            "kept": 80001,
        },
        "celery-postgres": {
            "rate": 832.0,
            "cpu": 2875.0,
            "commands": 9.0,
            "fill_rate": 2639.0,
            "kept": 5001,
        },
    },
    "rounds": {"jobsite": [{}, {}, {}]},
}

PAGE = """\
# Figures

<!-- figures: throughput/without -->
old
<!-- end of figures -->

<!-- figures: throughput/kept -->
<!-- end of figures -->

<!-- figures: never-measured -->
as it was
<!-- end of figures -->
"""

WHERE = (
    "*`throughput`; medians of 3 interleaved rounds; 2 cores; Python 3.11.7; Django 5.2.19; "
    "valkey 9.1.2; PostgreSQL 18.6, fsync on.*"
)
KEPT_HEAD = (
    "| system | tasks/s | CPU µs/task | Redis cmds/task | filled/s | ends kept "
    "| ÷ the fastest peer | ÷ Celery |"
)
MADE = f"""\
# Figures

<!-- figures: throughput/without -->

![Chart: Tasks a second without results](images/benchmark-throughput.svg)

| system | tasks/s | CPU µs/task | Redis cmds/task | filled/s | ÷ the fastest peer | ÷ Celery |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| Jobsite | 76,925 | 18 | 0.03 | 90,000 | 46.25 | 46.25 |
| Celery 5.7.0, prefork | 1,663 | 589 | 9.00 | 3,279 | 1.00 | 1.00 |

{WHERE}

<!-- end of figures -->

<!-- figures: throughput/kept -->

![Chart: Tasks a second, every result kept](images/benchmark-recorded.svg)

![Chart: CPU µs a task, every result kept](images/benchmark-cpu.svg)

{KEPT_HEAD}
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| Jobsite, PostgreSQL | 26,383 | 38 | 1.00 | 90,000 | 80,001 | 31.71 | 31.71 |
| Celery 5.7.0, prefork, PostgreSQL | 832 | 2,875 | 9.00 | 2,639 | 5,001 | 1.00 | 1.00 |

{WHERE}

<!-- end of figures -->

<!-- figures: never-measured -->
as it was
<!-- end of figures -->
"""


def test_the_page_is_made_from_a_run() -> None:
    made = page.filled(PAGE, {"throughput": RUN})
    assert made == MADE
    assert page.filled(made, {"throughput": RUN}) == made


GROWTH: dict[str, Any] = {
    "measure": "growth",
    "machine": {"cores": 2, "load_before": 0.5},
    "medians": {
        "jobsite-sqlite": {
            "messages that wait/20000/cpu": 21.25,
            "messages that wait/20000/server": 3.5,
            "messages that wait/1000000/cpu": 21.0,
            "messages that wait/1000000/server": None,
        }
    },
    "rounds": {"jobsite-sqlite": [{}]},
}


def test_what_grows_has_a_line_for_each_size() -> None:
    lines = page.shown(GROWTH, "growth-wait")
    assert lines == [
        "| messages that wait | worker CPU µs each | Redis CPU µs each |",
        "| ---: | ---: | ---: |",
        "| 20,000 | 21.2 | 3.5 |",
        "| 1,000,000 | 21.0 | – |",
        "",
        "*`growth`; 2 cores; load 0.5 before.*",
    ]


def test_the_best_come_first_in_a_chart() -> None:
    chart = page.charts({"throughput": RUN})["benchmark-throughput.svg"]
    assert chart.index("Jobsite") < chart.index("Celery 5.7.0, prefork")
    assert "Jobsite, PostgreSQL" not in chart


def test_the_documentation_says_what_was_measured() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(text, FILES) == text, "run: python -m benchmarks.page"


@pytest.mark.parametrize("name", page.charts(FILES))
def test_the_charts_say_what_was_measured(name: str) -> None:
    drawn = (page.IMAGES / name).read_text(encoding="utf-8")
    assert drawn == page.charts(FILES)[name], "run: python -m benchmarks.page"


def test_every_system_has_a_label() -> None:
    assert set(page.LABELS) == set(SYSTEMS)


def test_a_chart_is_text_and_says_every_value() -> None:
    bars = [Bar("ours & theirs", 1234.0, "ours"), Bar("peer", 0.5, digits=1)]
    root = ET.fromstring(Chart("Title", "a subtitle", bars).svg())
    space = "{http://www.w3.org/2000/svg}"
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "title desc"
    assert root.findtext(f"{space}title") == "Title"
    assert root.findtext(f"{space}desc") == "a subtitle. ours & theirs: 1,234; peer: 0.5."
    texts = [text.text for text in root.iter(f"{space}text")]
    assert texts == ["Title", "a subtitle", "ours & theirs", "1,234", "peer", "0.5"]
    widths = [float(bar.get("width", "")) for bar in root.iter(f"{space}rect")]
    assert widths == [340.0, 1.0]  # to scale, and never invisible
    assert "prefers-color-scheme: dark" in (root.findtext(f"{space}style") or "")


def test_the_readme_says_what_the_last_run_said() -> None:
    medians = next(run["medians"] for name, run in FILES.items() if name == "throughput")
    rate = {system: figures["rate"] for system, figures in medians.items()}
    bare, kept = rate["jobsite"], rate["jobsite-postgres"]
    for readme in ("README.md", "docs/zh/README.md"):
        text = (page.ROOT / readme).read_text()
        rates = [f"{round(one, -3):,.0f}" for one in (bare, kept)]
        ratios = [f"{one:.0f}" for one in (bare / rate["huey"], kept / rate["celery-postgres"])]
        for figure in rates + ratios:
            assert re.search(rf"(?<![\d,]){figure}\b", text), (readme, figure)
