"""Reads MEG: the quality-management product for hospitals, with one PostgreSQL database per region."""
