#!/bin/bash
# https://airflow.apache.org/docs/docker-stack/entrypoint.html
set -euo pipefail
umask 0002
if [ "${CONNECTION_CHECK_MAX_COUNT:-20}" -gt 0 ]; then
    for _ in $(seq "${CONNECTION_CHECK_MAX_COUNT:-20}"); do airflow db check && break || sleep 3; done
fi
case "${1:-}" in
bash | python) exec "$@" ;;
*) exec airflow "$@" ;;
esac
