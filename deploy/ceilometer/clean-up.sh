#!/bin/sh
# Removes what Gnocchi keeps of servers, interfaces and disks that ended: clean-up.sh [DAYS], by default 30.
# Wants python-gnocchiclient and an admin's OS_* variables.
set -eu
days=${1:-30}
case $days in
  '' | *[!0-9]*) echo "usage: $0 [DAYS]" >&2; exit 2 ;;
esac
for type in instance instance_network_interface instance_disk; do
  echo "$type, ended more than $days days ago:"
  openstack metric resource batch delete -t "$type" "ended_at < '-${days}days'"
done
