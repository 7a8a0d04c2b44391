"""Alerts do what they say, and neither they nor the dashboard nor an autoscaler names a metric or a label that the server
does not have. docs/metrics.md is the list; a test of the server holds it against a running one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import manifests
import pytest
import yaml
from manifests import K8S

MONITORING = K8S / "monitoring"
# What Prometheus puts on each series of a pod, and what histograms have.
LABELS_OF_PROMETHEUS = {"namespace", "pod", "container", "endpoint", "le"}
METRICS_OF_OTHERS = {"up"}

needs_promtool = pytest.mark.skipif(
    not (manifests.TOOLS / "bin" / "promtool").exists(), reason="no promtool: k8s/test/fetch.sh takes it from Debian"
)


def documented() -> dict[str, tuple[str, set[str]]]:
    """Type and labels by name, as Prometheus has it."""
    found: dict[str, tuple[str, set[str]]] = {}
    for line in (K8S.parent / "docs" / "metrics.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| `adjoin_") or len(cells) != 4:
            continue
        name, kind, labels = cells[0].strip("`"), cells[1], {label.strip() for label in cells[2].split(",")} - {""}
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"]}
        for suffix in suffixes.get(kind, [""]):
            found[name + suffix] = (kind, labels)
    return found


DOCUMENTED = documented()


def rules() -> list[dict[str, str]]:
    document = yaml.safe_load((MONITORING / "prometheusrule.yaml").read_text(encoding="utf-8"))
    return [rule for group in document["spec"]["groups"] for rule in group["rules"]]


def dashboard() -> dict:
    return json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))


def targets() -> Iterator[tuple[str, str, str]]:
    """Title of the panel, expression, legend."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target["legendFormat"]


def expressions() -> dict[str, str]:
    found = {f"alert {rule['alert']}": rule["expr"] for rule in rules()}
    for number, (title, expression, _) in enumerate(targets()):
        found[f"panel {title} ({number})"] = expression
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            # label_values(SERIES, LABEL)
            found[f"variable {variable['name']}"] = variable["definition"].split("(", 1)[1].rsplit(",", 1)[0]
    for path in (MONITORING / "scaledobject.yaml",):
        for trigger in yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]["triggers"]:
            found[path.name] = trigger["metadata"]["query"]
    adapter = yaml.safe_load((MONITORING / "prometheus-adapter.yaml").read_text(encoding="utf-8"))
    found["prometheus-adapter.yaml"] = adapter["rules"]["custom"][0]["seriesQuery"]
    keda = manifests.charted(K8S / "helm" / "values" / "sidecar.yaml").only("ScaledObject")
    found["chart, keda"] = keda["spec"]["triggers"][0]["metadata"]["query"]
    return found


EXPRESSIONS = expressions()


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Metrics of an expression with the labels that they are selected by."""
    found = []
    for name, inside in re.findall(r"\b(adjoin_\w+|up)\b(?:\{([^}]*)\})?", expression):
        found.append((name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inside))))
    return found


@pytest.mark.parametrize("place", EXPRESSIONS)
def test_metrics_and_labels_exist(place: str) -> None:
    found = selectors(EXPRESSIONS[place])
    assert found, "no metric in it"
    labels_of_all: set[str] = set()
    for name, labels in found:
        if name in METRICS_OF_OTHERS:
            continue
        assert name in DOCUMENTED, f"{name} is not in docs/metrics.md"
        own = DOCUMENTED[name][1]
        labels_of_all |= own
        assert labels <= own | LABELS_OF_PROMETHEUS, f"{name} has no label {labels - own}"
    for grouped in re.findall(r"\bby \(([^)]*)\)", EXPRESSIONS[place]):
        by = {label.strip() for label in grouped.split(",")}
        assert by <= labels_of_all | LABELS_OF_PROMETHEUS


def test_counters_are_not_read_as_they_are() -> None:
    for place, expression in EXPRESSIONS.items():
        for name, _ in selectors(expression):
            kind = DOCUMENTED.get(name, ("", set()))[0]
            if kind in ("counter", "histogram"):
                assert re.search(rf"(rate|increase)\({name}\b", expression), f"{place}: {name} without a rate"


def test_legends_name_labels_that_are_left() -> None:
    for title, expression, legend in targets():
        wanted = set(re.findall(r"\{\{(\w+)\}\}", legend))
        grouped = re.search(r"\bby \(([^)]*)\)", expression)
        if grouped:
            left = {label.strip() for label in grouped[1].split(",")} - {"le"}
        elif re.search(r"\b(sum|count|max|avg)\(", expression):
            left = set()
        else:
            left = {"pod", "namespace"} | DOCUMENTED[selectors(expression)[0][0]][1]
        assert wanted <= left, f"{title}: {legend}"


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for place, e in EXPRESSIONS.items() if place.startswith("panel") for name, _ in selectors(e)}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    missing = {re.sub(r"_(bucket|sum|count)$", "", name) for name in DOCUMENTED} - families
    assert missing == set()


def test_panels_lie_beside_one_another() -> None:
    places: set[tuple[int, int]] = set()
    identifiers = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & places, f"{panel['title']} overlaps"
        places |= cells


@needs_promtool
def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    document = yaml.safe_load((MONITORING / "prometheusrule.yaml").read_text(encoding="utf-8"))
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(document["spec"], width=10_000), encoding="utf-8")
    shutil.copy(MONITORING / "rules_test.yaml", tmp_path)
    manifests.run("promtool", "check", "rules", tmp_path / "rules.yaml")
    manifests.run("promtool", "test", "rules", tmp_path / "rules_test.yaml")


def test_every_alert_has_a_test_that_it_fires_and_one_that_it_does_not() -> None:
    cases = yaml.safe_load((MONITORING / "rules_test.yaml").read_text(encoding="utf-8"))["tests"]
    expected = [case for test in cases for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in expected if case["exp_alerts"]}
    silent = {case["alertname"] for case in expected if not case["exp_alerts"]}
    alerts = {rule["alert"] for rule in rules()}
    assert fires == alerts and silent == alerts


@needs_promtool
def test_expressions_are_those_that_prometheus_takes(tmp_path: Path) -> None:
    plain = {
        place: re.sub(r"\$__rate_interval", "5m", re.sub(r"\$(namespace|pod|model)", ".*", expression))
        for place, expression in EXPRESSIONS.items()
    }
    named = [{"record": f"check:{i}", "expr": expression} for i, expression in enumerate(plain.values())]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "check", "rules": named}]}, width=10_000), encoding="utf-8")
    manifests.run("promtool", "check", "rules", "--lint=none", file)
    named[0]["expr"] += " by by"
    file.write_text(yaml.safe_dump({"groups": [{"name": "check", "rules": named}]}), encoding="utf-8")
    with pytest.raises(manifests.ToolFailed):
        manifests.run("promtool", "check", "rules", "--lint=none", file)
