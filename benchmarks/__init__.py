"""Comparisons with measurements: published rows, and runs of this machine."""
