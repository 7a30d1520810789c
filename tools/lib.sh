# What quickstart.sh and check.sh share. Sourced, with the repository's root as working folder.

# Shows a command, then runs it.
run() {
  printf '+ %s\n' "$*"
  "$@"
}

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Names in tools/packages.txt: those to build and run, and with the argument `check` also those of
# tools/check.sh.
package_names() {
  awk -v group="${1:-}" '/^[a-z0-9]/ && ($2 == "" || $2 == group) { print $1 }' tools/packages.txt
}

# Installs what is missing of package_names "$@". Touches neither apt nor the network when nothing
# is.
install_packages() {
  if ! command -v dpkg-query >/dev/null; then
    echo "no dpkg here, so nothing is installed: tools/packages.txt lists what the build needs, under its Debian names"
    return
  fi
  local name missing=()
  for name in $(package_names "$@"); do
    case "$(dpkg-query -W -f='${db:Status-Status} ' "$name" 2>/dev/null || true)" in
      installed*) ;;
      *) missing+=("$name") ;;
    esac
  done
  if [ ${#missing[@]} -eq 0 ]; then
    echo "all packages of tools/packages.txt are installed"
    return
  fi
  local as_root=(env DEBIAN_FRONTEND=noninteractive)
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
      die "missing packages, and neither root nor sudo to install them; have an administrator run: apt-get install ${missing[*]}"
    as_root=(sudo "${as_root[@]}")
  fi
  run "${as_root[@]}" apt-get -o Acquire::Retries=3 update
  run "${as_root[@]}" apt-get -o Acquire::Retries=3 install -y --no-install-recommends "${missing[@]}"
}

# Settings under which Open MPI 4.1 starts anywhere, containers included.
mpi_environment() {
  if [ "$(id -u)" -eq 0 ]; then  # containers know no other user; mpirun wants to hear twice that this is meant
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
  # Copies between processes by ptrace are forbidden in most containers; shared memory is as good
  # for our messages.
  export OMPI_MCA_btl_vader_single_copy_mechanism=none
}

# Configures a preset once, and when the presets change; later builds re-run CMake by themselves
# when its files or the list of sources change.
configure() {
  [ "build/$1/build.ninja" -nt CMakePresets.json ] || run cmake --preset "$1"
}
