"""Suites: variants x seeds x splits, row by row."""
