#!/bin/sh
# https://hub.docker.com/_/postgres: initialises an empty PGDATA, lets other hosts in, and runs the server as postgres.
set -e
as_postgres="setpriv --reuid=999 --regid=999 --clear-groups"
mkdir -p "$PGDATA" && chown -R 999:999 /var/lib/postgresql && chmod 700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    $as_postgres initdb --pgdata="$PGDATA" --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
fi
exec $as_postgres "$@" -clisten_addresses='*'
