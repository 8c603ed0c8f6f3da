#!/usr/bin/env bash
# One model for a folder of scenes: train on the first few, label them all.
#
#   examples/pipeline.sh SCENES_DIR OUTPUT_DIR [options of hsiclust train, such as -k 12]
#
# Start it again after a kill or a time limit: finished maps are kept, an unfinished one goes on.
set -euo pipefail

scenes=$1
output=$2
shift 2
mkdir -p "$output"
# A second start would take the maps of the first for scenes.
[ ! "$scenes" -ef "$output" ] || { echo "$output: holds the scenes; name another folder for the maps" >&2; exit 2; }
model=$output/model.safetensors

mapfile -t all < <(find "$scenes" -maxdepth 1 -type f \( -name '*.tif' -o -name '*.bsq' -o -name '*.img' \) | sort)
[ "${#all[@]}" -gt 0 ] || { echo "no scene in $scenes" >&2; exit 3; }
# Scenes of one name but for the suffix would have one map: all but the first would be left out.
twice=$(printf '%s\n' "${all[@]##*/}" | sed 's/\.[^.]*$//' | sort | uniq -d)
[ -z "$twice" ] || { echo "$scenes: several scenes are called ${twice//$'\n'/, }; rename them" >&2; exit 3; }

if [ ! -f "$model" ]; then
    hsiclust train "${all[@]:0:3}" -o "$model" "$@"
fi

failed=0
for scene in "${all[@]}"; do
    name=$(basename "${scene%.*}")
    map=$output/${name}_labels.tif
    [ -f "$map" ] && continue
    # A scene that fails must not stop the others; being stopped (75, 130) must.
    code=0
    hsiclust predict "$scene" -m "$model" -o "$map" --confidence || code=$?
    case $code in
        0) ;;
        75 | 130) exit "$code" ;;
        *) failed=1 ;;
    esac
done
exit "$failed"
