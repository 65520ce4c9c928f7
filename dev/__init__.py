"""MEG BI on one machine, without Docker and without root: databases from wheels, Airflow from .venv."""
