"""Faults of every kind, injected while a slice is loaded again and again and a reader looks on."""
