"""Experiments: files, workloads, runner, checker, analysis, reports and the command line."""
