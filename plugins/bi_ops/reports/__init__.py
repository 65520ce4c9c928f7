"""Draws the reports defined in include/charts/ from the live collections."""
