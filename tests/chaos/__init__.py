"""Injects faults of every kind while a slice is loaded repeatedly and read concurrently."""
