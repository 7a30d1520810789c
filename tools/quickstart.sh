#!/usr/bin/env bash
# From a fresh Debian 12 to a trained model: installs the missing packages, builds, runs the main job.
#   tools/quickstart.sh [key=value ...]     settings for the run, for example: tools/quickstart.sh seed=2
# A second call installs nothing and builds only what changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/lib.sh

for argument in "$@"; do
  case "$argument" in
    -h | --help)
      sed -n '2,4s/^# \{0,1\}//p' tools/quickstart.sh
      exit 0
      ;;
    *=*) ;;
    *)
      echo "error: '$argument' is not a setting; write key=value, for example seed=2" >&2
      exit 2
      ;;
  esac
done

install_packages
configure release
run cmake --build --preset release --target orrery -j "$(nproc)"

mpi_environment
# By default Open MPI ties a job of one or two ranks to one core each, which would starve a rank's threads.
run mpirun --bind-to none -n 1 build/release/bin/orrery train experiments/quickstart.yaml "$@"
