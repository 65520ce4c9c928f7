"""Benchmarks on the local machine, as ratios; both sides of each ratio are measured in the same run."""
