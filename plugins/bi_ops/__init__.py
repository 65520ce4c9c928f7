"""MEG BI: aggregates how hospitals use MEG, from each region's PostgreSQL into one MongoDB database."""

__version__ = "0.1.0"
