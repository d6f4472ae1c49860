"""Metrics with their intervals, baselines and reports."""
