#!/bin/sh
# Builds the stand-ins under the names in docker-compose.yaml, in the folder given, which holds npm/ and mongod.
# Needs root, a Docker engine and debootstrap. An existing base is kept.
set -eu
images=$(cd "$(dirname "$0")" && pwd)
context=$1
root=$(cd "$images/../../.." && pwd)
if ! docker image inspect meg-bi-debian >/dev/null 2>&1; then
    echo "compose-test: building the base of the images from Debian's packages"
    base=$(mktemp -d)
    packages=ca-certificates,curl,wget,dumb-init,tini,python3,python3-venv,nodejs,postgresql-client,redis-server
    debootstrap --variant=minbase --include="$packages" trixie "$base" http://deb.debian.org/debian >"$context/debootstrap.log"
    cp /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/certs/" # with the authority of a proxy, where there is one
    tar -C "$base" -c . | docker import - meg-bi-debian >/dev/null
    rm -rf "$base"
fi
cp "$images"/* "$context"
cp "$root/dev/requirements.txt" "$context"
grep -E '^ *image:' "$root/docker-compose.yaml" | awk '{print $2}' | sort -u | while read -r image; do
    case $image in
    meg-bi-*) continue ;; # which Compose builds
    esac
    name=${image%%:*}
    echo "compose-test: building $image"
    docker build --quiet --target "$name" --tag "$image" "$context" >/dev/null
done
docker build --quiet --target airflow --tag "$(awk '/^FROM/ {print $2}' "$root/dev/Dockerfile")" "$context" >/dev/null
