"""Tests on real databases, a real scheduler and real processes."""
