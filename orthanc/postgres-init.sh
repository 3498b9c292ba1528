#!/bin/sh
# One database and one account for each service; run once, by the PostgreSQL image, on an empty volume.
set -eu

create() {
  psql --set=ON_ERROR_STOP=1 --username postgres --set=account="$1" --set=secret="$2" --quiet <<'SQL'
CREATE ROLE :"account" LOGIN PASSWORD :'secret';
CREATE DATABASE :"account" OWNER :"account";
SQL
}

create preread "$PREREAD_DATABASE_PASSWORD"
create orthanc "$ORTHANC_DATABASE_PASSWORD"
create hapi "$HAPI_DATABASE_PASSWORD"
psql --set=ON_ERROR_STOP=1 --username postgres --quiet --command 'CREATE DATABASE preread_engine OWNER preread'
