#!/usr/bin/env bash
# A scene by a job array, then its map by a job that waits for all shards.
#
#   examples/slurm/submit.sh SHARDS SCENE [options of hsiclust predict]
set -euo pipefail

shards=$1
shift
here=$(dirname "$0")
array=$(sbatch --parsable --array="1-$shards" "$here/shard.sbatch" "$@")
# After a shard that failed as well: the merge then says which are missing, where `afterok` would wait
# in the queue for ever.
sbatch --dependency="afterany:${array%%;*}" "$here/merge.sbatch" "$@"
