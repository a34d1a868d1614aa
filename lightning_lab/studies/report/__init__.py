"""The report of a study: one page to read, the same tables as Markdown and CSV, and curves for TensorBoard."""

from lightning_lab.studies.report.build import write_report

__all__ = ["write_report"]
