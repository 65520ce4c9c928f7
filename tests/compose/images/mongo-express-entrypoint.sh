#!/bin/sh
# https://hub.docker.com/_/mongo-express: starts the page unless another command is given.
set -e
[ "$1" = mongo-express ] || exec "$@"
cd /app/node_modules/mongo-express && exec node app
