# shellcheck shell=bash
# Sourced by the launchers. `do_it COMMAND ...` prints a command and runs it; after --dry-run it prints only.
dry_run=
arguments=()
for argument in "$@"; do
  if [ "$argument" = --dry-run ]; then dry_run=1; else arguments+=("$argument"); fi
done
set -- "${arguments[@]+"${arguments[@]}"}"

do_it() {
  local word line=+
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@+-]+$ ]] || word=${word@Q}
    line+=" $word"
  done
  echo "$line"
  [ -n "$dry_run" ] || "$@"
}

need() { # need NAME VALUE WHAT: stop when a setting is missing
  if [ -z "$2" ]; then
    echo "$0: set $1, $3." >&2
    exit 2
  fi
}
