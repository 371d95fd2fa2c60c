#!/bin/sh
# ./gpu test [DEVICE] · bench [DEVICE] [--cases …] · sanitize [FILTER] · peers [OPTIONS] · doctor · minisequence COMMAND …
# DEVICE: cuda (default), cuda:N or cpu.
# The program of the bundle that scripts/bundle.mjs makes; see docs/gpu_machine.md.
here=$(cd "$(dirname "$0")" && pwd)
bin=$here/app/bin
export LD_LIBRARY_PATH="$here/lib:$here/prebuilds/linux-x64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
command=$1
[ $# -gt 0 ] && shift
case "$command" in
  test)
    cd "$here" || exit 1
    export MST_TEST_DEVICE="${1:-cuda}" MST_TEST_COMMAND="$bin/minisequence.mjs"
    [ "$MST_TEST_DEVICE" = cpu ] || ./app/native_tests --gtest_brief=1 || exit 1
    exec ./node app/bin/tests.mjs ;;
  sanitize)
    for tool in memcheck racecheck initcheck synccheck; do
      echo "== $tool"
      compute-sanitizer --tool "$tool" --error-exitcode 1 "$here/app/native_tests" --gtest_brief=1 --gtest_filter="${1:-*}" || exit 1
    done ;;
  bench | peers) exec "$here/node" "$bin/$command.mjs" "$@" ;;
  doctor) exec "$here/node" "$bin/minisequence.mjs" doctor "$@" ;;
  minisequence) exec "$here/node" "$bin/minisequence.mjs" "$@" ;;
  *)
    sed -n 2,3p "$0" >&2
    exit 2 ;;
esac
