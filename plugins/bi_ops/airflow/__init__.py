"""All that imports Airflow: DAGs, operators, connections."""
