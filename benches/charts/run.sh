#!/bin/bash
# Pipes public manifests through `check --pod`, as they are and with boathook grafted into them; see README.md.
#
#   benches/charts/run.sh FOLDER [BINARY]
#
# FOLDER has rendered manifests, one file for each chart. BINARY is boathook-kube; else the one of `cargo build`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
binary=${2:-$here/../../target/debug/boathook-kube}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fail() {
    echo "$1" >&2
    touch "$scratch/failed"
}

for file in "$folder"/*.yaml; do
    for format in text json sarif github; do
        code=0
        "$binary" check --format "$format" --pod - < "$file" > "$scratch/out" 2> "$scratch/err" || code=$?
        case $code in
            0) ;;
            65) grep -q 'is a template' "$scratch/err" || fail "$file: not read: $(cat "$scratch/err")" ;;
            *) fail "$file, as $format: exit code $code" ;;
        esac
        if [ "$format" = json ] && [ "$code" = 0 ] && ! grep -q '"findings": \[\]' "$scratch/out"; then
            fail "$file: findings without boathook"
        fi
    done
    if "$binary" check --fix --pod - < "$file" > "$scratch/out" 2> /dev/null; then
        cmp -s "$file" "$scratch/out" || fail "$file: --fix changes what is right"
    fi
    python3 "$here/graft.py" "$file" > "$scratch/grafted.yaml" 2> /dev/null || continue
    "$binary" check --fix --format json --pod - < "$scratch/grafted.yaml" > "$scratch/fixed.yaml" 2> "$scratch/found" || true
    "$binary" check --format json --pod - < "$scratch/fixed.yaml" > "$scratch/left" 2> /dev/null || true
    for which in found left; do
        grep -h '"rule":' "$scratch/$which" | sed "s/.*: /grafted, $which: /" || true
    done
done | sort | uniq -c
[ ! -e "$scratch/failed" ]
