#!/usr/bin/env bash
# Packs the command for machines without its libraries: cluster nodes, a GPU machine.
#   tools/bundle.sh OUT.tar.gz [BUILD]     BUILD: build/cuda-release where that is built, else
#                                          build/release
# Inside is one folder, orrery-bundle: bin/orrery, bin/mpirun and bin/orted (Open MPI), which find
# Debian's libraries in lib/ from wherever it is unpacked; share/quickstart, a model and its config;
# src/, the sources of the checks of a GPU (src/tools/gpu_suite.sh), which nvcc alone builds.
# A system needs the C library that this one has, or a newer one: the programs say so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/lib.sh

case "${1:-}" in
  "" | -*)
    sed -n '2,8s/^# \{0,1\}//p' tools/bundle.sh
    [ "${1:-}" = --help ] || [ "${1:-}" = -h ] || exit 2
    exit 0
    ;;
esac
out=$(realpath -m "$1")
build=${2:-build/cuda-release}
if [ -z "${2:-}" ] && [ ! -x "$build/bin/orrery" ]; then
  build=build/release
  echo "note: build/cuda-release is not built, so the bundle's orrery has no CUDA; build it with" >&2
  echo "      cmake --preset cuda-release && cmake --build --preset cuda-release" >&2
fi
program=$build/bin/orrery
[ -x "$program" ] || die "no $program: build it first (cmake --build --preset release --target orrery)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle=$work/orrery-bundle
mkdir -p "$bundle"/{bin,lib/openmpi,lib/pmix,libexec,share/openmpi,share/quickstart,src}

libraries_of() {
  ldd "$@" 2>/dev/null | awk '$3 ~ /^\// { print $3 }' | sort -u
}

# --- programs ---
mpirun=$(readlink -f "$(command -v mpirun)")
orted=$(readlink -f "$(command -v orted)")
cp "$program" "$bundle/libexec/orrery"
cp "$mpirun" "$bundle/libexec/mpirun"
cp "$orted" "$bundle/libexec/orted"
programs=(orrery mpirun orted)
# For a rehearsal of the GPU suite.
for name in bin/orrery-emulated ops_check_emulated; do
  [ -x "build/release/$name" ] || continue
  cp "build/release/$name" "$bundle/libexec/"
  programs+=("$(basename "$name")")
done
for name in "${programs[@]}"; do [ "$name" = mpirun ] || [ "$name" = orted ] || strip "$bundle/libexec/$name"; done

# --- Open MPI's plugins, but for fabrics whose libraries are the cluster's own ---
plugins=$(dirname "$(ldconfig -p | awk '/libmpi\.so/ { print $NF; exit }')")/openmpi/lib/openmpi3
[ -d "$plugins" ] || die "no folder $plugins of Open MPI's plugins"
for plugin in "$plugins"/mca_*.so; do
  case $(basename "$plugin") in
    mca_*ucx* | mca_*ofi* | mca_*psm* | mca_*usnic* | mca_*openib* | mca_*portals* | mca_*hcoll* | mca_io_* | mca_fs_* | \
      mca_fbtl_* | mca_fcoll_* | mca_sharedfp_* | mca_*monitoring* | mca_*cuda* | mca_crs_* | mca_*gm.so) ;;
    *) cp "$plugin" "$bundle/lib/openmpi/" ;;
  esac
done
pmix=$(dirname "$(ldconfig -p | awk '/libpmix\.so/ { print $NF; exit }')")
for plugin in "$pmix"/pmix2/lib/pmix/*.so; do cp "$plugin" "$bundle/lib/pmix/"; done
cp /usr/share/openmpi/*.txt "$bundle/share/openmpi/"

# --- libraries, but for the C library's: those belong to the system ---
libraries_of "$bundle"/libexec/* "$bundle"/lib/openmpi/*.so "$bundle"/lib/pmix/*.so >"$work/libraries"
while read -r library; do
  case $(basename "$library") in
    ld-linux* | libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | librt.so.* | libresolv.so.* | libutil.so.*) ;;
    *) cp -L "$library" "$bundle/lib/" ;;
  esac
done <"$work/libraries"
find "$bundle/lib" -name '*.so*' -exec strip --strip-unneeded {} + 2>/dev/null || true
# The newest version of a symbol of the C library that anything here asks for.
find "$bundle/lib" "$bundle/libexec" -type f -exec grep -aoh 'GLIBC_2\.[0-9]*' {} + | sort -t. -k2n | tail -1 |
  sed 's/GLIBC_2\.//' >"$bundle/lib/glibc_minor"

# --- what stands in bin/: the same lines before each program ---
cat >"$bundle/lib/environment.sh" <<'END'
# Sourced by bin/*, with $root set. Libraries come from the bundle, the C library from the system.
needed=$(cat "$root/lib/glibc_minor")
found=$( (getconf GNU_LIBC_VERSION || ldd --version) 2>/dev/null | sed -n '1s/.*[ (]2\.\([0-9][0-9]*\).*/\1/p')
if [ -n "$found" ] && [ "$found" -lt "$needed" ]; then
  echo "error: this system's C library is glibc 2.$found, and the programs of this bundle need 2.$needed or later:" \
    "use a newer system, or build from the sources on this one" >&2
  exit 2
fi
export PATH="$root/bin:$PATH"
export LD_LIBRARY_PATH="$root/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export OPAL_PREFIX="$root" OPAL_DATADIR="$root/share" OPAL_PKGDATADIR="$root/share/openmpi"
export OMPI_MCA_mca_base_component_path="$root/lib/openmpi" PMIX_MCA_mca_base_component_path="$root/lib/pmix"
# Copies between processes by ptrace are forbidden in most containers.
export OMPI_MCA_btl_vader_single_copy_mechanism=none
if ! command -v ssh >/dev/null && ! command -v rsh >/dev/null && ! command -v srun >/dev/null; then
  export OMPI_MCA_plm="${OMPI_MCA_plm:-isolated}"  # this machine alone, with nothing to reach others
fi
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
END
for name in "${programs[@]}"; do
  cat >"$bundle/bin/$name" <<END
#!/bin/sh
root=\$(cd "\$(dirname "\$(readlink -f "\$0")")/.." && pwd) || exit 1
. "\$root/lib/environment.sh"
exec "\$root/libexec/$name" "\$@"
END
  chmod +x "$bundle/bin/$name"
done
# Daemons on other nodes are started by the bundle's path there.
sed -i 's|libexec/mpirun" |&--prefix "$root" |' "$bundle/bin/mpirun"

# --- fixtures and sources ---
cp -r experiments/quickstart.yaml experiments/quickstart_model "$bundle/share/quickstart/"
find core kernels learners/losses learners/cuda learners/token_loss.* tests/gpu tests/kernels tests/support -name '*.h' -o -name '*.cuh' -o -name '*.cu' -o \
  -path 'core/*.cc' -o -path 'kernels/*.cc' -o -path 'learners/token_loss.cc' -o -path 'tests/gpu/*' -type f |
  tar -c --files-from=- tools/gpu_suite.sh | tar -x -C "$bundle/src"
third=$bundle/src/third_party
mkdir -p "$third/include" "$third/lib"
for header in fmt spdlog hwy; do cp -r "/usr/include/$header" "$third/include/"; done
for name in fmt spdlog hwy; do
  library=$(readlink -f "/usr/lib/$(gcc -print-multiarch)/lib$name.so")
  cp "$library" "$bundle/lib/$(objdump -p "$library" | awk '/SONAME/ { print $2 }')"
  ln -s "../../../lib/$(objdump -p "$library" | awk '/SONAME/ { print $2 }')" "$third/lib/lib$name.so"
done
pkg-config --cflags-only-other spdlog fmt libhwy >"$third/flags"
git rev-parse HEAD >"$bundle/COMMIT" 2>/dev/null || echo unknown >"$bundle/COMMIT"

mkdir -p "$(dirname "$out")"
tar -C "$work" -cf - orrery-bundle | gzip -6 >"$out.part"
mv "$out.part" "$out"
echo "$out: $(stat -c %s "$out" | awk '{ printf "%.1f MB", $1 / 1e6 }'), $program of $(cut -c1-12 "$bundle/COMMIT"), glibc 2.$(cat "$bundle/lib/glibc_minor")"
[ "$(stat -c %s "$out")" -lt 60000000 ] || die "$out is larger than 60 MB"
