#!/bin/sh
# Makes throw-away keys for the demo data space, once: an authority, and a certificate each. What exists is kept.
set -eu
dir=/keys
[ -f "$dir/ca.pem" ] || kontor pki authority --dir "$dir" --name "Kontor compose authority"
for name in broker provider consumer; do
  [ -f "$dir/$name.pem" ] || kontor pki participant --dir "$dir" --participant "urn:kontor:compose:$name" --name "$name" \
    --host "$name" --host localhost --host 127.0.0.1
done
