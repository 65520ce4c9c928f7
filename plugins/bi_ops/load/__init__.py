"""Loads a slice: plan, stage, publish."""
