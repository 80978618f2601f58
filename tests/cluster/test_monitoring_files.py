"""What is in monitoring/, without a server: alerts that fire when they should, a dashboard that Grafana understands."""

from __future__ import annotations

import json
import re
import subprocess
import typing
from enum import Enum
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from harness.monitoring import FILES, tool
from harness.server import REPOSITORY

DOCUMENT = (REPOSITORY / "docs" / "monitoring.md").read_text()
ALERTS = yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((FILES / "grafana_dashboard.json").read_text())


def promtool(*arguments: object) -> str:
    """What promtool says; an AssertionError with that if it is not content."""
    done = subprocess.run([tool("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_alerts() -> None:
    """Their syntax, and that of their templates."""
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", FILES / "alerts.yaml")


def test_alerts_fire_when_they_should() -> None:
    """promtool's own unit tests; each alert occurs there as one that fires."""
    tests = REPOSITORY / "tests" / "monitoring" / "alerts_test.yaml"
    promtool("test", "rules", tests)
    fired = set(re.findall(r'alertname="(\w+)"', tests.read_text())) | set(
        re.findall(r"alertname: (\w+)\n\s+eval_time: \w+\n\s+exp_alerts:\n", tests.read_text())
    )
    assert fired == {alert["alert"] for alert in ALERTS}


def test_alerts_are_documented() -> None:
    """Each with its severity, and no others."""
    documented = re.findall(r"^\| `(Backfill\w+)` \| (\w+) \|", DOCUMENT, re.M)
    assert documented == [(alert["alert"], alert["labels"]["severity"]) for alert in ALERTS]


def test_both_exporters_ask_the_same() -> None:
    """The files differ in form only: queries, labels and values."""
    one = yaml.safe_load((FILES / "postgres_exporter.yaml").read_text())
    other = yaml.safe_load((FILES / "sql_exporter.yaml").read_text())["jobs"][0]["queries"]
    flat = {}
    for name, entry in one.items():
        columns = [(column, usage["usage"]) for metric in entry["metrics"] for column, usage in metric.items()]
        flat[name] = (
            entry["query"].strip(),
            [column for column, usage in columns if usage == "LABEL"],
            [column for column, usage in columns if usage != "LABEL"],
        )
    assert flat == {entry["name"]: (entry["query"].strip(), entry["labels"], entry["values"]) for entry in other}
    assert all(entry["allow_zero_rows"] for entry in other), "else the last row before none is shown for ever"


def test_grafana_knows_all_of_the_dashboard() -> None:
    """Grafana's own model of a dashboard has every key of ours, and each value has the type that it asks for."""
    register_default_plugins()
    model = Dashboard.from_json(DASHBOARD)
    assert lost(DASHBOARD, json.loads(JSONEncoder(sort_keys=True).encode(model)), "") == []
    assert misfits(model, Dashboard, "") == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["panels", 0, "gridPos", "w"], "12"),
        (["panels", 0, "options", "orientation"], "sideways"),
        (["panels", 0, "targets", 0, "exprr"], "up"),
        (["panels", 4, "fieldConfig", "defaults", "custom", "fillOpactiy"], 1),
        (["templating", "list", 1, "refresh"], "often"),
    ],
)
def test_what_grafana_does_not_know_is_found(path: list[Any], value: Any) -> None:
    """So that the test above means something."""
    register_default_plugins()
    broken = json.loads(json.dumps(DASHBOARD))
    place = broken
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    model = Dashboard.from_json(broken)
    assert lost(broken, json.loads(JSONEncoder(sort_keys=True).encode(model)), "") + misfits(model, Dashboard, "")


def test_panels_have_their_places() -> None:
    """On a grid of 24 columns, none over another, each with a number of its own, and the variable's data source."""
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${datasource}"
            assert target["legendFormat"] and '"$database"' in target["expr"] and '"$job"' in target["expr"]
    for key in ("id", "title"):
        values = [panel[key] for panel in DASHBOARD["panels"]]
        assert len(set(values)) == len(values)


def test_the_dashboard_and_the_alerts_use_metrics_that_there_are() -> None:
    """A name that nobody exports is an empty panel, or an alert that never fires."""
    documented = set(re.findall(r"^\| `(backfill_[a-z0-9_]+)` \|", DOCUMENT, re.M))
    expressions = [alert["expr"] for alert in ALERTS]
    expressions += [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    expressions += [variable["query"]["query"] for variable in DASHBOARD["templating"]["list"][1:]]
    used = {name for expression in expressions for name in re.findall(r"\bbackfill_[a-z0-9_]+", expression)}
    assert used <= documented


def lost(given: Any, kept: Any, path: str) -> list[str]:
    """What of the JSON is not there any more after it went through the model."""
    if isinstance(given, dict) and isinstance(kept, dict):
        missing = [f"{path}.{key}" for key in given if key not in kept]
        return missing + [x for key in given if key in kept for x in lost(given[key], kept[key], f"{path}.{key}")]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return [x for i, pair in enumerate(zip(given, kept, strict=True)) for x in lost(*pair, f"{path}[{i}]")]
    return [] if given == kept else [f"{path}: {given!r} became {kept!r}"]


def misfits(value: Any, wanted: Any, path: str) -> list[str]:
    """Where a value of the model has another type than the model says."""
    origin, parts = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted in (Any, object) and type(value).__module__.startswith("grafana_foundation_sdk"):
        wanted = type(value)
    if wanted in (Any, object):
        return []
    if origin is typing.Literal:
        return [] if value in parts else [f"{path}: {value!r}"]
    if origin is typing.Union or "UnionType" in type(wanted).__name__:
        tries = [misfits(value, part, path) for part in parts]
        return [] if any(not found for found in tries) else min(tries, key=len)
    if origin is list:
        if not isinstance(value, list):
            return [f"{path}: {value!r} is no list"]
        return [x for i, one in enumerate(value) for x in misfits(one, parts[0], f"{path}[{i}]")]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{path}: {value!r} is no object"]
        return [x for key, one in value.items() for x in misfits(one, parts[1], f"{path}.{key}")]
    if not isinstance(wanted, type):
        return []
    if issubclass(wanted, Enum):
        return [] if value in [one.value for one in wanted] else [f"{path}: {value!r} is no {wanted.__name__}"]
    if wanted is float:
        return [] if isinstance(value, int | float) and not isinstance(value, bool) else [f"{path}: {value!r}"]
    if not isinstance(value, wanted):
        return [f"{path}: {value!r} is no {wanted.__name__}"]
    inner = typing.get_type_hints(type(value)) if type(value).__module__.startswith("grafana_foundation_sdk") else {}
    return [x for key, hint in inner.items() for x in misfits(getattr(value, key), hint, f"{path}.{key}")]
