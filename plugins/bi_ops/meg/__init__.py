"""Reads one region's MEG database."""
