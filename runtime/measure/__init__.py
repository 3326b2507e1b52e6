"""Measurements on the ranks of a plan, with its engines and its layouts: `rlplan bench`."""
