from __future__ import annotations

from pathlib import Path

import pytest

import experiments
from experiments.columns import TABLES, TABLES_OF_RUNS, markdown
from experiments.metrics import METRICS, unknown_metric


def test_the_reference_page_is_the_one_made_from_the_schema() -> None:
    page = Path(experiments.__path__[0]) / "COLUMNS.md"
    assert page.read_text(encoding="utf-8") == markdown(), "make it anew: python -m experiments.columns"


def test_every_column_has_a_unit_in_its_name_if_it_is_a_quantity() -> None:
    dimensionless = ("ratio", "_ratio", "value", "packets", "bytes")
    for table in (*TABLES, *TABLES_OF_RUNS):
        assert len(set(table.names)) == len(table.names)
        for column in table.columns:
            if column.kind == "number":
                assert column.name.endswith(("_s", "_ms", "_bps", *dimensionless)), (table.file, column.name)


def test_metric_names_are_unique() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)


def test_what_the_readme_of_a_metric_says_is_known() -> None:
    for metric in METRICS:
        assert unknown_metric(metric.name.replace("<fault_id>", "f1"), fault_ids=["f1"]) is None


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("deliveries.ratio.p51", "did you mean"),
        ("recovery.f2.outage_ms.max", "recovery.f1.outage_ms.max"),
        ("zzz", "COLUMNS.md"),
    ],
)
def test_an_unknown_metric_is_answered_with_its_neighbours(name: str, advice: str) -> None:
    assert advice in (unknown_metric(name, fault_ids=["f1"]) or "")
