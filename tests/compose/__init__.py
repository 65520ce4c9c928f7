"""docker-compose.yaml with and without Docker: every command, environment and health check, on real programs."""
