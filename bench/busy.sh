#!/usr/bin/env bash
# What a busy machine costs, and an idle one: runs in turns, medians and ratios.
#   bench/busy.sh [--pairs 5] [--busy 3] [--busy-only] [--idle-only] [--model DIR]
# 1. Beside --busy processes that compute without end (two cores: 3; give one more than there are
#    cores): 20 SFT steps of the quickstart with the threads of the default, with one, and with the
#    default of ORRERY_A if that is set.
# 2. On the machine as it is, which should be idle: 60 SFT steps of the quickstart and `orrery
#    bench step` (of --model; default: a random model of 8M parameters) by the command ORRERY_A and
#    by ORRERY_B.
# ORRERY_B is the command under test, build/release/bin/orrery if it is not set; ORRERY_A another
# build of it to hold it against; without it part 2 is left out. About 2 minutes a pair for part 2,
# less for part 1 unless ORRERY_A suffers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/lib.sh
mpi_environment
exec python3 bench/busy.py "$@"
