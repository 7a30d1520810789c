#!/usr/bin/env bash
# Cross-compiles the kernels' tests and the digests of training (tests/learners/digest_test.cc) for
# 64-bit Arm and runs them under qemu-user: the bits must be those of the scalar code, and the
# digests those of x86-64.
#   tools/aarch64_tests.sh [gtest arguments]
# Needs g++-aarch64-linux-gnu, qemu-user and Highway for arm64 (libhwy1 of Debian: in
# /usr/lib/aarch64-linux-gnu, or its folder in ORRERY_AARCH64_HWY; `tools/aarch64_tests.sh --fetch`
# downloads it into the build folder). Exit code 77, with the reason, where one of them is absent.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=build/aarch64
skip() {
  echo "SKIP: $1"
  exit 77
}

# Debian's package, through the system's own apt, but without telling the system that it has a
# second architecture.
fetch() {
  local apt="$PWD/$build/apt"
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
  local options=(-o APT::Architectures::="$(dpkg --print-architecture)" -o APT::Architectures::=arm64
    -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update -qq
  (cd "$apt" && apt-get "${options[@]}" download -qq libhwy-dev:arm64 libhwy1:arm64)
  for package in "$apt"/*.deb; do dpkg -x "$package" "$build/root"; done
  echo "Highway for arm64 is in $build/root/usr/lib/aarch64-linux-gnu"
}

if [ "${1:-}" = --fetch ]; then
  fetch
  exit 0
fi

cxx=aarch64-linux-gnu-g++
command -v $cxx >/dev/null || skip "no $cxx; apt install g++-aarch64-linux-gnu"
command -v qemu-aarch64 >/dev/null || skip "no qemu-aarch64; apt install qemu-user"
highway=
for folder in "${ORRERY_AARCH64_HWY:-}" "$PWD/$build/root/usr/lib/aarch64-linux-gnu" /usr/lib/aarch64-linux-gnu; do
  if [ -n "$folder" ] && [ -e "$folder/libhwy.so" ]; then
    highway=$folder
    break
  fi
done
[ -n "$highway" ] || skip "no libhwy.so for arm64; tools/aarch64_tests.sh --fetch, or set ORRERY_AARCH64_HWY"

# Headers do not differ by architecture; the C library's own must not be found beside them.
mkdir -p $build/include $build/obj
for name in hwy fmt spdlog gtest gmock; do
  [ -d /usr/include/$name ] || skip "no /usr/include/$name; tools/check.sh installs it"
  ln -sfn /usr/include/$name $build/include/$name
done
googletest=/usr/src/googletest
[ -d $googletest ] || skip "no $googletest; apt install googletest"

mapfile -t sources < <(
  find core -name '*.cc' ! -name sha256.cc ! -name file.cc ! -name 'json_*.cc' ! -name durable_file.cc ! -name lfs_pointer.cc
  # Not what needs Protobuf.
  find kernels learners tests/kernels -name '*.cc' ! -path learners/objective.cc ! -path learners/advantage.cc ! -path '*/aggregation.cc' \
    ! -path learners/schedule.cc ! -path learners/weight_channel.cc
  printf '%s\n' comm/{communicator,local_communicator,mesh}.cc models/{parameters,linear,block,batch_plan,kv_cache}.cc models/transformer*.cc \
    tests/learners/digest_test.cc $googletest/googletest/src/gtest-all.cc $googletest/googlemock/src/gmock-all.cc \
    $googletest/googletest/src/gtest_main.cc
)
object() { echo "$build/obj/${1//\//_}.o"; }
cache=$(command -v ccache || true)
compile() {
  local out flags=(-std=c++20 -O2 -ffp-contract=off -pthread -DSPDLOG_FMT_EXTERNAL -DFMT_HEADER_ONLY "-DORRERY_SOURCE_DIR=\"$PWD\""
    -I. -isystem "$build/include" -isystem "$googletest/googletest" -isystem "$googletest/googlemock")
  out=$(object "$1")
  # An object is remade when any of the house's headers or the source is newer.
  [ "$out" -nt "$1" ] && [ -z "$(find core kernels comm models learners rollout tests -name '*.h' -newer "$out" -print -quit)" ] && return
  [[ $1 == /* ]] || flags+=(-Wall -Wextra -Werror -Wno-missing-field-initializers)
  $cache $cxx "${flags[@]}" -c "$1" -o "$out" || { rm -f "$out"; echo "error: $1 does not compile for arm64" >&2; return 1; }
}
export -f compile object
export build cxx cache googletest
printf '%s\0' "${sources[@]}" | xargs -0 -P "$(nproc)" -I{} bash -c 'compile "$1"' _ {}

objects=()
for source in "${sources[@]}"; do objects+=("$(object "$source")"); done
$cxx -pthread -o $build/tests "${objects[@]}" -L"$highway" -lhwy
exec qemu-aarch64 -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH="$highway" $build/tests "$@"
