#!/bin/bash
# A scheduler here, a worker on each host, and the study:  HOSTS="node1 node2" bash ssh.sh my_study.yaml
# Start it in the folder with .venv and the study file. Ctrl-C lets the cells save, and ends workers and scheduler; the
# same command takes the study up again.
HOSTS=${HOSTS:?the hosts of the workers, for example "node1 node2"}
HEAD=${HEAD:-$(hostname)}  # this machine, by the name the hosts reach it by
PORT=${PORT:-8786}
CELLS=${CELLS:-2}          # of each host at once
SSH=${SSH:-ssh}
set -eu
quiet="--no-dashboard --dashboard-address 127.0.0.1:0"
trap 'kill $(jobs -p) 2>/dev/null' EXIT

setsid .venv/bin/dask scheduler --host "$HEAD" --port "$PORT" $quiet > scheduler.log 2>&1 &  # setsid: no Ctrl-C
for host in $HOSTS; do
  # -tt: the worker ends with its connection
  $SSH -tt "$host" "cd '$PWD' && exec .venv/bin/dask worker tcp://$HEAD:$PORT --nthreads $CELLS --no-nanny $quiet \
    --death-timeout 60" < /dev/null > "worker-$host.log" 2>&1 &
done
.venv/bin/lightning-lab study run "$1" --scheduler "tcp://$HEAD:$PORT"
