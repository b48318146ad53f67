#!/bin/sh
# Succeeds if every database of the daemon is well. ADDR is its addr:, by default port 9090.
exec python3 - "http://${ADDR:-127.0.0.1:9090}/health" <<'EOF'
import sys
import urllib.error
import urllib.request

try:
    with urllib.request.urlopen(sys.argv[1], timeout=10) as answer:
        print(answer.read().decode())
except urllib.error.HTTPError as error:
    sys.exit(error.read().decode())
except OSError as error:
    sys.exit(f"no daemon answers at {sys.argv[1]}: {error}")
EOF
