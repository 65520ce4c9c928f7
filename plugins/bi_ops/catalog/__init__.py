"""Declares what is loaded: jobs, periods, slices and their SQL."""
