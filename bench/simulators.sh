#!/bin/sh
# This simulator, turmoil, madsim and moonpool-sim, each with the same echo: 100 clients write a KiB and read it back, over
# 1 to 10 ms each way. One after the other, RUNS times in turn; one table at the end, of medians, by processor time.
# Usage: bench/simulators.sh [virtual seconds]   (default: 20; turmoil, the slowest, gets a tenth of them)
set -eu
cd "$(dirname "$0")/simulators"
runs=${RUNS:-3}
seconds=${1:-20}
slow=$((seconds / 10))
[ "$slow" -gt 0 ] || slow=1

target=${CARGO_TARGET_DIR:-target}
cargo build --release --locked -p turmoil-echo -p moonpool-echo
# madsim is another library with this flag, and so are the libraries that it shares with others.
RUSTFLAGS="--cfg madsim" cargo build --release --locked -p madsim-echo --target-dir "$target/madsim"
if [ -z "${TWINSPAN:-}" ]; then
    (cd ../.. && cargo build --release --locked -p twinspan-cli)
    TWINSPAN=${CARGO_TARGET_DIR:-../../target}/release/twinspan
fi

out=$(mktemp)
trap 'rm -f "$out"' EXIT
for _ in $(seq "$runs"); do
    "$TWINSPAN" bench sim --part streams --echo-seconds "$seconds" --json >>"$out"
    "$target/madsim/release/madsim-echo" "$seconds" >>"$out"
    "$target/release/moonpool-echo" "$seconds" >>"$out"
    "$target/release/turmoil-echo" "$slow" >>"$out"
    "$target/release/turmoil-echo" "$seconds" 1 >>"$out"
done
python3 - "$out" <<'TABLE'
import json
import statistics
import sys

runs = {}
for line in open(sys.argv[1], encoding="utf-8"):
    run = json.loads(line)
    if "simulator" in run:
        messages = run["messages"] / run["cpu_seconds"]
        speed = run["virtual_seconds"] / run["cpu_seconds"]
    else:
        messages, speed = run["async_messages_per_cpu_second"], run["async_times_real_time"]
    runs.setdefault(run.get("simulator", "twinspan"), []).append((messages, speed))
medians = {name: [statistics.median(column) for column in zip(*found)] for name, found in runs.items()}
ours = medians["twinspan"][0]
print("| simulator | runs | messages a CPU-second | times real time | ours to it |")
print("|---|--:|--:|--:|--:|")
for name, (messages, speed) in sorted(medians.items(), key=lambda entry: -entry[1][0]):
    print(f"| {name} | {len(runs[name])} | {messages:,.0f} | {speed:,.1f} | {ours / messages:,.1f} |")
TABLE
