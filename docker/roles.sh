#!/bin/sh
# Run by the image of PostgreSQL when its cluster is new: a role and a database per client. psql reads the passwords itself.
set -eu
psql --set ON_ERROR_STOP=1 --username postgres --quiet <<'SQL'
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
\set dagster `cut -d: -f5 /run/secrets/dagster_pgpass`
\set mlflow `cut -d: -f5 /run/secrets/mlflow_pgpass`
CREATE ROLE dagster LOGIN PASSWORD :'dagster';
CREATE DATABASE dagster OWNER dagster;
REVOKE CONNECT, TEMPORARY ON DATABASE dagster FROM PUBLIC;
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE DATABASE mlflow OWNER mlflow;
REVOKE CONNECT, TEMPORARY ON DATABASE mlflow FROM PUBLIC;
SQL
