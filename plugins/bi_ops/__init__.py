"""MEG BI: how hospitals use MEG, aggregated from each region's PostgreSQL into one MongoDB database."""

__version__ = "0.1.0"
