#!/bin/sh
# https://hub.docker.com/_/mongo: runs mongod as mongodb.
set -e
chown -R 999:999 /data/db /data/configdb
exec setpriv --reuid=999 --regid=999 --clear-groups "$@"
