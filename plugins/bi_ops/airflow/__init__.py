"""Integrates with Airflow: DAGs, operators, connections, notifications."""
