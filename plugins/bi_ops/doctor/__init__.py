"""Checks everything that the jobs need, and gives a hint for each problem."""
