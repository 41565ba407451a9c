"""Compares notebooks tolerantly wherever pytest is started from: see the plugin."""

pytest_plugins = ["tests.notebooks.tolerant_nbval"]
