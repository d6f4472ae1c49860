#!/bin/sh
# libpq reads a password only from a file that nobody else may read, which a mounted secret is not: copy it into memory.
set -eu
umask 077
for role in dagster mlflow; do
  if [ -r "/run/secrets/${role}_pgpass" ]; then
    cat "/run/secrets/${role}_pgpass" > "/tmp/${role}.pgpass"
  fi
done
exec "$@"
