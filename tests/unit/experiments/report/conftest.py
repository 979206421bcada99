from tests.unit.experiments.analysis.conftest import write_run

__all__ = ["write_run"]
