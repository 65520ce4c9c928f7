"""Checks everything that the jobs need, with a hint for each problem."""
