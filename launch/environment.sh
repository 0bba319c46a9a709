# shellcheck shell=bash
# Sourced by the scripts beside it: the environment in which ranks run on one, possibly small, machine.

# Open MPI refuses root unless told twice.
if ((EUID == 0)); then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# Containers often forbid reading another process's memory; Open MPI then fails in the middle of a large message.
export OMPI_MCA_btl_vader_single_copy_mechanism=${OMPI_MCA_btl_vader_single_copy_mechanism-none}
# Idle threads of one rank must not take the cores from another.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY-passive}

# configure_quietly DIRECTORY ARGUMENT...: runs cmake; shows what it said only when it fails.
configure_quietly() {
  local folder=$1 log
  shift
  mkdir -p "$folder"
  log=$folder/configure.log
  if ! cmake "$@" >"$log" 2>&1; then
    cat "$log" >&2
    return 1
  fi
  grep -m 1 '^-- annulus: ' "$log" || true
}
