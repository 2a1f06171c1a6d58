#!/usr/bin/env bash
# Run by `make demo`: index this manual and ask it three questions. BIN is the folder with the embedkit command.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BIN:-.venv/bin}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$PWD/docs" "$PWD/README.md" "$work"
PATH=$PWD/$bin:$PATH
cd "$work"
unset EMBEDKIT_MODEL # the demo uses the models that come with the package

show() {
  printf '\n$ %s\n' "$1"
  eval "$1"
}

show "embedkit index build README.md 'docs/**/*.md' --index manual.index"
show 'embedkit search manual.index "what happens when I press Ctrl-C in the middle?" --top-k 3'
show 'embedkit search manual.index "which BERT families can be loaded" --top-k 3'
show 'embedkit search manual.index "how do I find duplicate texts?" --top-k 3 --rerank'
printf '\nNow try your own files:\n\n  export PATH=$PWD/%s:$PATH\n  embedkit index FOLDER\n  embedkit search WORDS\n' "$bin"
