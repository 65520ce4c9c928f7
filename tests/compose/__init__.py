"""docker-compose.yaml without Docker: each service's command, environment and health check, on real programs."""
