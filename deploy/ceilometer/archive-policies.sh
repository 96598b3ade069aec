#!/bin/sh
# Makes Gnocchi's archive policies for measurements of servers; what is there already stays.
# Wants python-gnocchiclient and an admin's OS_* variables.
set -eu
points='-d granularity:5s,points:720 -d granularity:60s,points:720 -d granularity:3600s,points:720'
there=$(openstack metric archive-policy list -f value -c name)
make() {
  name=$1
  shift
  if printf '%s\n' "$there" | grep -qx "$name"; then
    echo "$name is there already"
  else
    # shellcheck disable=SC2086 # several words
    openstack metric archive-policy create "$name" $points "$@"
  fi
}
make concertim_rate_policy -m rate:mean -m mean
make concertim_policy -m mean
