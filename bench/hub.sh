#!/bin/sh
# The hub beside iceoryx2, Aeron, Zenoh and mosquitto: the same sizes and waits, in turns, one table of ratios.
# Usage: bench/hub.sh [quick | full | smoke]   (quick, the default: each cell once, some minutes; full: three
# times and longer; smoke: that all of them run). RUNS and TIME_MS override; TWINSPAN and PEERS name programs that
# are built already. Two cores, nothing else running.
# Needs mosquitto for the MQTT rows, libclang to build iceoryx2, and for Aeron CMake 3.30 (PyPI has it where Debian's is
# older) with libuuid and libbsd (Debian: apt-get install uuid-dev libbsd-dev). What is missing is left out and said.
set -eu
cd "$(dirname "$0")"
case ${1:-quick} in
quick) runs=1 time_ms=800 ;;
full) runs=3 time_ms=4000 ;;
smoke) runs=1 time_ms=160 ;;
*) echo "usage: bench/hub.sh [quick | full | smoke]" >&2; exit 2 ;;
esac
runs=${RUNS:-$runs} time_ms=${TIME_MS:-$time_ms}

mqtt=
if command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ]; then
    mqtt=mqtt
else
    echo "MQTT is left out: mosquitto is missing (Debian: apt-get install mosquitto)" >&2
fi
peers=${PEERS:-hub/target/release/twinspan-hub-peers}
features=
cmake=$(cmake --version 2>/dev/null | sed -n 's/^cmake version //p')
if [ "$(printf '%s\n3.30\n' "$cmake" | sort -V | head -n 1)" = 3.30 ]; then
    features=--features=aeron
fi
# shellcheck disable=SC2086
[ -n "${PEERS:-}" ] || (cd hub && cargo build --release --locked $features)
[ -n "${TWINSPAN:-}" ] || { (cd .. && cargo build --release --locked -p twinspan-cli); TWINSPAN=../target/release/twinspan; }
limit=$((time_ms / 1000 + 30))
aeron_ipc=aeron-ipc aeron_udp=aeron-udp
if ! timeout "$limit" $peers run --library aeron-ipc --time-ms 20 >/dev/null; then
    aeron_ipc='' aeron_udp=''
    echo "Aeron is left out: see the head of this script for what it needs" >&2
fi

notes=$(mktemp)
trap 'rm -f "$notes"' EXIT
trap 'exit 130' INT TERM

# note LIBRARY COMMAND..: one run, noted under the row that `row` began; one that fails is said and left out.
note() {
    library=$1
    shift
    if said=$(timeout "$limit" "$@" 2>/dev/null); then
        printf '{"row":"%s","target":"%s","library":"%s","run":%s}\n' "$row" "$target" "$library" "$said" >>"$notes"
    else
        echo "$row: $library gave no figure (status $?): $*" >&2
    fi
}

# row NAME TARGET OURS LIBRARIES THEIRS: a cell of ours and of each library, in turns.
row() {
    row=$1 target=$2
    for _ in $(seq "$runs"); do
        case $3 in
            # It takes what its first answers take.
            *--zero-rtt*) time= ;;
            # Less than seconds of silence is mostly the beginning.
            *--idle*) time="--time-ms $((time_ms > 3000 ? time_ms : 3000))" ;;
            *) time="--time-ms $time_ms" ;;
        esac
        # shellcheck disable=SC2086
        note twinspan "$TWINSPAN" bench hub $time --json $3
        for one in $4; do
            # shellcheck disable=SC2086
            note "$one" $peers run --library "$one" --time-ms "$time_ms" $5
        done
    done
}

for size in 8 48; do
    row "$size B, spinning, one way" "≤ 0.20 µs; ≤ 0.30 × iceoryx2, 1.15 × Aeron" \
        "--size $size" "iceoryx2 $aeron_ipc" "--size $size"
done
row "64 B, spinning" "≤ 0.40 × iceoryx2" "--size 64" "iceoryx2 $aeron_ipc" "--size 64"
row "1 KiB, spinning" "≤ 0.55 × iceoryx2" "--size 1024" "iceoryx2 $aeron_ipc" "--size 1024"
for size in 65536 1048576; do
    row "$((size / 1024)) KiB by loan, first word" "≤ 0.35 µs; ≤ 0.5 × iceoryx2" \
        "--size $size --loan --touch first" "iceoryx2" "--size $size --touch first"
done
row "1 MiB by loan, written and read" "≤ 1.05 × iceoryx2" \
    "--size 1048576 --loan" "iceoryx2" "--size 1048576"
row "64 KiB loaned, written and read" "≥ 110 Gbit/s" \
    "--mode throughput --size 65536 --loan" "iceoryx2" "--mode throughput --size 65536"
row "64 KiB loaned, written, first word read" "≥ 300 Gbit/s" \
    "--mode throughput --size 65536 --loan --touch written" "iceoryx2" \
    "--mode throughput --size 65536 --touch written"
row "64 B, published one at a time" "≥ 8 × iceoryx2" \
    "--mode throughput --size 64" "iceoryx2 $aeron_ipc" "--mode throughput --size 64"
row "64 B, published in batches" "≥ 1.5 × Aeron IPC" \
    "--mode throughput --size 64 --batch 64" "$aeron_ipc" "--mode throughput --size 64"
row "48 B each 50 µs, default wait" "≤ 0.3 µs" \
    "--size 48 --wait adaptive --gap-us 50" "iceoryx2-event" "--size 48 --gap-us 50"
row "48 B each 50 µs, asleep, guard" "≤ 0.5 × iceoryx2's event" \
    "--size 48 --wait block --gap-us 50 --guard" "iceoryx2-event" "--size 48 --gap-us 50 --guard"
row "48 B each 50 µs, asleep" "≤ 0.9 × iceoryx2's event" \
    "--size 48 --wait block --gap-us 50" "iceoryx2-event" "--size 48 --gap-us 50"
for road in shm udp tcp quic; do
    row "a silent subscriber, $road" "≤ 0.1 %" "--idle --wait adaptive --transport $road" "" ""
done

# Against libraries that also cross the network: both ends of ours in their default wait.
network="zenoh-tcp zenoh-udp zenoh-shm $mqtt"
for size in 64 1024 65536; do
    row "$size B, one way, default wait" "ahead" "--size $size --wait adaptive" "$network" "--size $size"
    row "$size B, a stream, default wait" "ahead" "--mode throughput --size $size --wait adaptive" \
        "$network" "--mode throughput --size $size"
done

udp="--transport udp"
row "udp, 64 B, spinning" "≤ 1.25 × floor, ≤ 0.5 × Aeron, ≤ 0.03 × Zenoh" "$udp --size 64" \
    "zenoh-udp $aeron_udp" "--size 64"
row "udp, 64 B, spinning, two namespaces" "≤ 1.25 × floor" "$udp --size 64 --netns" "" ""
row "udp by io_uring, 64 B, spinning" "" "--transport uring --size 64" "" ""
row "udp by io_uring, 64 B" "" "--transport uring --mode throughput --size 64 --reliable" "" ""
row "udp, 64 B, asleep" "≤ 1.2 × floor; ahead" "$udp --size 64 --wait block" "$network" "--size 64"
row "udp, 64 B, tasks, guard" "≤ 1.3 × floor, ≤ 0.25 × Zenoh" "$udp --size 64 --wait async --guard" \
    "zenoh-udp zenoh-tcp" "--size 64 --guard"
row "udp, reliable, 64 B" "≥ 10 M/s; ≥ 3 × Zenoh" "$udp --mode throughput --size 64 --reliable" \
    "zenoh-udp $aeron_udp $mqtt" "--mode throughput --size 64"
row "udp, reliable, 64 B, in batches" "≥ 10 M/s" \
    "$udp --mode throughput --size 64 --reliable --batch 64" "" ""
row "udp, reliable, 64 KiB" "≥ 40 Gbit/s; ≥ 2 × Zenoh tcp" \
    "$udp --mode throughput --size 65536 --reliable" "zenoh-tcp" "--mode throughput --size 65536"
row "udp, reliable, 64 KiB, AES" "≥ 20 Gbit/s" \
    "$udp --mode throughput --size 65536 --reliable --seal aes" "" ""
row "udp, reliable, 64 KiB, ChaCha20" "≥ 10 Gbit/s" \
    "$udp --mode throughput --size 65536 --reliable --seal chacha" "" ""
row "udp, each datagram to another address" "≥ 0.9 × floor" \
    "$udp --mode throughput --size 64 --destinations 64" "" ""
for road in tcp quic; do
    row "$road, 64 B, asleep" "≤ 1.15 × floor" "--transport $road --size 64 --wait block" "zenoh-tcp" "--size 64"
    row "$road, 64 KiB, a stream" "≥ 0.9 × floor" "--transport $road --mode throughput --size 65536" \
        "zenoh-tcp" "--mode throughput --size 65536"
done
row "quic, best effort, 64 B, asleep" "≤ 1.15 × floor" "--transport quic --best-effort --size 64 --wait block" "" ""
row "quic, best effort, 64 B" "≥ 0.9 × floor" "--transport quic --best-effort --mode throughput --size 64" "" ""
row "quic, first answer on a 20 ms link" "a round trip earlier" "--transport quic --zero-rtt" "" ""
$peers table "$notes"
