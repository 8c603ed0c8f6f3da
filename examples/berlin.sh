#!/usr/bin/env bash
# The commands of docs/tutorial.md, from named polygons to a scored map and a final one.
#
#   examples/berlin.sh [options of hsiclust train, such as --method svm]
#
# Run it at the root of the repository. Nothing is replaced: it stops where berlin.safetensors or
# any other of its results is already there.
set -euo pipefail

hsiclust info examples/data/berlin/enmap.bsq

hsiclust train examples/data/berlin/enmap.bsq -o berlin.safetensors \
    --labels examples/data/berlin/land_cover.gpkg --field Level_2 "$@"
hsiclust predict examples/data/berlin/enmap.bsq -m berlin.safetensors -o berlin.tif --confidence
hsiclust evaluate berlin.tif berlin_held_out.tif --confidence berlin_confidence.tif
hsiclust report berlin.tif --scene examples/data/berlin/enmap.bsq --truth berlin_held_out.tif

hsiclust train examples/data/berlin/enmap.bsq -o berlin_final.safetensors \
    --labels examples/data/berlin/land_cover.gpkg --field Level_2 "$@" --split none
hsiclust predict examples/data/berlin/enmap.bsq -m berlin_final.safetensors -o berlin_final.tif
hsiclust report berlin_final.tif --scene examples/data/berlin/enmap.bsq
