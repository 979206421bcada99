"""What a run ends with, for people: the summary in the terminal, and ``report.html`` with its plots.

    print_summary(Console(), Path("runs/latest"), analysis, manifest)
    write_page(folder, analysis, manifest)

Pages and plots are made from the CSV files of a run folder and nothing else, and load what draws them when they are called.
"""

from experiments.report.summary import REPORT_FILE, print_summary, write_report

__all__ = ["REPORT_FILE", "print_summary", "write_report"]
