"""The challenges, one folder each: task, checks, evidence, figures."""
