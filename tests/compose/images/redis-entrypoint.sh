#!/bin/sh
# https://hub.docker.com/_/redis: runs the server as redis, whose user id is 999.
set -e
chown -R 999:999 /data
cd /data
exec setpriv --reuid=999 --regid=999 --clear-groups "$@"
