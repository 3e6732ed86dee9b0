#!/bin/sh
# Twinspan, renet, ENet and quinn on one schedule, one after the other, three times; one table at the end.
# Usage: bench/run.sh [players ...]   (default: 250 1000). Needs two cores; ENet needs libenet-dev.
set -eu
cd "$(dirname "$0")"
runs=${RUNS:-3}
seconds=${SECONDS_EACH:-5}
state_bytes=${STATE_BYTES:-250}
[ $# -gt 0 ] || set -- 250 1000

features=
if [ -e /usr/include/enet/enet.h ]; then
    features="--features enet"
else
    echo "ENet is left out: /usr/include/enet/enet.h is missing (Debian: apt-get install libenet-dev)" >&2
fi
# shellcheck disable=SC2086
cargo build --release --locked $features
(cd .. && cargo build --release --locked -p twinspan-cli)

# The same class for all; without the right to it, the usual one.
real_time=
if chrt -f 10 true 2>/dev/null; then real_time="chrt -f 10"; fi

out=$(mktemp)
trap 'rm -f "$out"' EXIT
peer() {
    $real_time ./target/release/twinspan-peers run --players "$players" --seconds "$seconds" \
        --state-bytes "$state_bytes" "$@" >>"$out" || echo "$* at $players players ended early" >&2
}
for _ in $(seq "$runs"); do
    for players in "$@"; do
        ../target/release/twinspan bench world --players "$players" --seconds "$seconds" \
            --world off --state-bytes "$state_bytes" --json >>"$out"
        [ -z "$features" ] || [ "$players" -gt 4095 ] || peer --library enet
        peer --library quinn
        # renet polls each millisecond or at 60 Hz: the second costs less, the first answers sooner.
        [ "$players" -gt 1024 ] || peer --library renet --poll-us 16667
    done
done
./target/release/twinspan-peers table "$out"
