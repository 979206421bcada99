"""`hconf test` on small projects of its own: it must notice whatever fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import selftest

PYPROJECT = """
[tool.mypy]
files = ["experiments"]

[tool.ruff.lint]
select = ["F"]

[tool.pytest.ini_options]
addopts = ["-p", "no:cacheprovider"]

[tool.importlinter]
root_packages = ["experiments", "testbed"]

[[tool.importlinter.contracts]]
name = "arrows point down"
type = "layers"
layers = ["experiments", "testbed"]
"""

FAST = ("--fast", "-n0")  # worker processes would take longer than the tests

GOOD_TEST = "def test_good() -> None:\n    assert True\n"

#: What breaks the project -> the step that must notice.
BREAKERS = {
    "ruff check": ("experiments/unused.py", "import os\n"),
    "ruff format": ("experiments/ugly.py", "x  =  1\n"),
    "flake8-async": ("testbed/unawaited.py", "import trio\n\n\nasync def f() -> None:\n    trio.sleep(1)\n"),
    "lint-imports": ("testbed/upward.py", "import experiments\n\nprint(experiments)\n"),
    "mypy --strict": ("experiments/untyped.py", "def f(x):\n    return x\n"),
    "tests without root": ("tests/test_bad.py", "def test_bad() -> None:\n    assert False\n"),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for package in selftest.PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_good.py").write_text(GOOD_TEST)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    monkeypatch.setattr(selftest, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def verdicts(output: str) -> dict[str, str]:
    """Return the table's rows: step -> its verdict."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if line.startswith("│")]
    return {row[0]: row[1] for row in rows}


@pytest.mark.usefixtures("project")
def test_everything_good(capfd: pytest.CaptureFixture[str]) -> None:
    assert selftest.main([*FAST]) == 0
    output = capfd.readouterr().out
    assert set(verdicts(output).values()) == {"pass", "left out"}
    assert output.splitlines()[-1] == "1 passed, 0 failed, 0 skipped"


def test_whatever_fails_is_noticed(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path, content in BREAKERS.values():
        (project / path).write_text(content)
    assert selftest.main([*FAST]) == 1
    output = capfd.readouterr().out
    found = verdicts(output)
    assert {step for step, verdict in found.items() if verdict == "FAIL"} == set(BREAKERS)
    assert output.splitlines()[-1] == "1 passed, 1 failed, 0 skipped"


@pytest.mark.parametrize("step", ["mypy --strict", "tests without root"])
def test_one_failure_is_enough(project: Path, capfd: pytest.CaptureFixture[str], step: str) -> None:
    path, content = BREAKERS[step]
    (project / path).write_text(content)
    assert selftest.main([*FAST]) == 1
    assert [name for name, verdict in verdicts(capfd.readouterr().out).items() if verdict == "FAIL"] == [step]


@pytest.mark.usefixtures("project")
def test_no_test_at_all_is_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    assert selftest.main([*FAST, "-k", "nothing_is_called_so"]) == 1
    assert capfd.readouterr().out.splitlines()[-1] == "0 passed, 0 failed, 0 skipped"


def test_named_tests_only(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / "tests" / "test_bad.py").write_text(BREAKERS["tests without root"][1])
    assert selftest.main(["tests/test_good.py::test_good"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "1 passed, 0 failed, 0 skipped"


def test_without_the_tests_there_is_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(selftest, "ROOT", tmp_path)
    assert selftest.main() == 2
    assert "(fix: run ./hconf test in a clone)" in capsys.readouterr().out


def test_counts_of_all_suites_are_added_and_errors_are_failures(tmp_path: Path) -> None:
    results = tmp_path / "results.xml"
    results.write_text(
        '<testsuites><testsuite tests="10" failures="1" errors="2" skipped="3"/>'
        '<testsuite tests="1" failures="0" errors="0" skipped="0"/></testsuites>'
    )
    assert selftest.read_counts(results) == selftest.Counts(passed=5, failed=3, skipped=3)


def test_no_results_count_as_none(tmp_path: Path) -> None:
    assert selftest.read_counts(tmp_path / "missing.xml") == selftest.Counts()
