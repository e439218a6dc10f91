"""A run or a benchmark as one page that needs no network."""

from apq_moo.benchmarks.report.page import write_report

__all__ = ["write_report"]
