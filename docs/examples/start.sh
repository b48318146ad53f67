#!/bin/sh
# Restore the database if it is missing, then replicate it as long as the application runs.
# DB is its path, REPLICA the URL or folder of its replica, the arguments are the command.
set -eu
sqlitereplica restore -if-db-not-exists -if-replica-exists -o "$DB" "$REPLICA"
exec sqlitereplica replicate -exec "$*" "$DB" "$REPLICA"
