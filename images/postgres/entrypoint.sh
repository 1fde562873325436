#!/bin/sh
# Starts PostgreSQL on the data in $PGDATA, which it makes at the first start: $POSTGRES_USER with $POSTGRES_PASSWORD owns
# the database $POSTGRES_DB. As root it takes the data over for the user postgres and goes on as that.
set -eu
export PGDATA="${PGDATA:-/var/lib/postgresql/data}"
user="${POSTGRES_USER:-postgres}"
database="${POSTGRES_DB:-$user}"

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown -R postgres:postgres "$PGDATA"
    exec su -s /bin/sh postgres -c /entrypoint.sh
fi
# A start that was cut off leaves no half of a database behind.
if [ ! -f "$PGDATA/made" ]; then
    : "${POSTGRES_PASSWORD:?set it to the password of $user}"
    rm -rf "$PGDATA"/*
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
    printf '%s\n' "$POSTGRES_PASSWORD" > /tmp/password
    initdb --username="$user" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C
    rm /tmp/password
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
    if [ "$database" != postgres ]; then
        echo "CREATE DATABASE \"$database\"" | postgres --single postgres > /dev/null
    fi
    touch "$PGDATA/made"
fi
exec postgres -c listen_addresses='*' -c dynamic_shared_memory_type=mmap
