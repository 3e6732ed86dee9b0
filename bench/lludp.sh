#!/bin/sh
# The codec of Second Life UDP beside Hippolyzer's, on the packets of one login, one after the other.
# Needs the environment that `.ci/run` makes in target/peers/hippolyzer (Python, hippolyzer from PyPI).
set -eu
cd "$(dirname "$0")/.."
python=${TWINSPAN_HIPPOLYZER:-target/peers/hippolyzer/bin/python}
[ -x "$python" ] || { echo "missing: $python (python3 -m venv, then pip install hippolyzer==0.15.6)" >&2; exit 2; }
[ -n "${TWINSPAN:-}" ] || { cargo build --release --locked -p twinspan-cli; TWINSPAN=target/release/twinspan; }

ours=$("$TWINSPAN" bench lludp --json)
theirs=$("$python" bench/lludp.py crates/twinspan-lludp/testdata/login.txt)
python3 - "$ours" "$theirs" <<'TABLE'
import json
import sys

ours, theirs = (json.loads(text) for text in sys.argv[1:])
print("| messages a second, one core | twinspan | Hippolyzer | ratio |")
print("|---|---|---|---|")
for part in ("decode", "encode"):
    one, other = (found[f"{part}_messages_per_second"] for found in (ours, theirs))
    print(f"| {part} | {one:,.0f} | {other:,.0f} | {one / other:,.0f} |")
TABLE
