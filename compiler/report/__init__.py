"""The report: one self-contained HTML file of what runs where, when and why."""
