#!/bin/bash
# What `make test-cloud` does: run.sh PYTHON [ARGUMENTS OF PYTEST]. Brings the cloud up, runs the tests, and leaves the cloud as it
# was found: up if it was up. CLOUD=keep leaves it up in any case, CLOUD=down stops it in any case.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=$1
shift
after=${CLOUD:-as-found}
case $after in
  as-found | keep | down) ;;
  *) echo "CLOUD is keep or down, not '$after'." >&2; exit 1 ;;
esac
as_root=
if [ "$(id -u)" != 0 ]; then
  as_root="sudo -n -E"
  $as_root true || { echo "The cloud's services are started as root: be root, or allow sudo without a password." >&2; exit 1; }
fi
found=down
if (. "$here/env.sh"; alive keystone && alive nova-api); then found=up; fi
$as_root "$here/up.sh"
named=
for one in "$@"; do case $one in *test_[0-9]*.py*) named=yes ;; esac; done
[ -n "$named" ] || set -- "$here" "$@"
code=0
"$python" -m pytest -s "$@" || code=$?
case $after-$found-$code in
  down-*-*) $as_root "$here/down.sh" ;;
  as-found-down-0) $as_root "$here/down.sh" ;;
  as-found-down-*) echo "The cloud is left up, to be looked at; $here/down.sh stops it." ;;
esac
exit "$code"
