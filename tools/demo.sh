#!/usr/bin/env bash
# From a prompt to a picture on this machine: builds, starts a server (which starts its worker),
# submits one task, follows its denoising steps, shows the picture, stops the server.
#   tools/demo.sh ["what to draw"]
set -euo pipefail
cd "$(dirname "$0")/.."

prompt=${1:-a red sneaker on white background}
demo=.demo data=.demo/data
picture=$demo/$(tr -cs 'a-z0-9' '-' <<<"${prompt,,}" | cut -c1-40 | sed 's/^-*//; s/-*$//').png
[ $# -gt 0 ] || picture=$demo/red-sneaker.png
headrace=build/headrace
server=''

say() { echo "demo: $*"; }

finish() { # also on Ctrl-C: never leaves a server behind
    local status=$?
    trap - EXIT INT TERM
    if [ -n "$server" ] && kill -0 "$server" 2>/dev/null; then
        kill -TERM "$server"
        for _ in $(seq 100); do
            kill -0 "$server" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$server" 2>/dev/null && say "the server did not stop in 10 s and was killed"
        wait "$server" 2>/dev/null || true
    fi
    if [ $status != 0 ]; then
        say "failed"
        if [ -s $demo/server.log ]; then
            say "the end of the server's log ($demo/server.log):"
            tail -25 $demo/server.log | sed 's/^/    /'
        fi
    fi
    exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

tools/setup.sh --quiet
[ -x $headrace ] || say "building, a minute or so on two cores"
tools/build dev

models=()
for folder in examples/models .deps/models; do
    [ ! -d $folder ] || models+=(--models $folder)
done
if [ ! -d examples/models/fashion-diffusion ]; then
    say "examples/models/fashion-diffusion is missing; make models trains it"
    exit 1
fi

# A fresh data folder every time, so that the demo is the same every time.
rm -rf $data
mkdir -p $data
say "starting headrace serve"
$headrace serve --data $data "${models[@]}" --listen 127.0.0.1:0 >$demo/server.log 2>&1 </dev/null &
server=$!
for _ in $(seq 300); do
    [ ! -s $data/endpoint ] || break
    kill -0 "$server" 2>/dev/null || { say "the server stopped"; exit 1; }
    sleep 0.1
done
[ -s $data/endpoint ] || { say "no $data/endpoint after 30 s"; exit 1; }
endpoint=$(head -1 $data/endpoint)
case $endpoint in *://*) ;; *) endpoint=http://$endpoint ;; esac
export HEADRACE_SERVER=$endpoint

say "server at $endpoint; submitting: $prompt"
input=$(/usr/bin/python3 -c 'import json, sys; print(json.dumps(
    {"prompt": sys.argv[1], "steps": 20, "seed": 7}))' "$prompt")
rm -f "$picture"
start=$(date +%s%N)
$headrace submit fashion-diffusion -i "$input" --wait -o "$picture"
took=$((($(date +%s%N) - start) / 1000000))
[ -s "$picture" ] || { say "there is no $picture"; exit 1; }

echo
say "$picture drawn in $((took / 1000)).$(printf '%03d' $((took % 1000))) s, submit to file"
cat <<END

Try next:
  make demo                                     again, or with your own words:
  tools/demo.sh "a black coat on white background"

  A server that stays, in one terminal:
    $headrace serve --data $demo/server ${models[*]} --listen 127.0.0.1:8700
  and in another:
    $headrace submit fashion-diffusion -i '{"prompt":"a blue bag","steps":12}' --wait -o bag.png
    curl -sS http://127.0.0.1:8700/v1/tasks -H 'Content-Type: application/json' \\
         -H 'Prefer: wait=30' -d '{"model":"fashion-diffusion","input":{"prompt":"a green dress"}}'
END
