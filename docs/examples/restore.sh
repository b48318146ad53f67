#!/bin/sh
# Bring all databases of a configuration back, prove them, and keep what was there before.
# Stop the application and the daemon first. Usage: restore.sh CONFIG DATABASE
set -eu
sqlitereplica verify -config "$1" "$2"
sqlitereplica restore -config "$1" -o "$2" -force -keep-old "$2.before" -integrity-check full "$2"
