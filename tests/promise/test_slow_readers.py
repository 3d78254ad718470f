"""A client that reads late gets all of it; one that does not read at all keeps nothing alive."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.promise.conversation import FIREFLY, ROOT

REPLY_SIZE = 900_000
SERVER = f"""
import json, sys, time
for line in sys.stdin:
    message = json.loads(line)
    result = {{"x": "y" * {REPLY_SIZE}}}
    print(json.dumps({{"jsonrpc": "2.0", "id": message["id"], "result": result}}), flush=True)
if "linger" in sys.argv:
    time.sleep(60)
"""
REQUEST = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "x/large"}).encode() + b"\n"


@pytest.mark.parametrize("after", ["ends", "linger"])
def test_a_client_that_reads_late_gets_the_whole_reply(db: Path, after: str) -> None:
    with started(db, [sys.executable, "-c", SERVER, after]) as proxy:
        assert proxy.stdin is not None
        assert proxy.stdout is not None
        proxy.stdin.write(REQUEST)
        proxy.stdin.close()
        time.sleep(3)  # longer than the proxy waits for a server that has nothing more to say
        reply = json.loads(proxy.stdout.read())
        assert len(reply["result"]["x"]) == REPLY_SIZE
        assert proxy.wait(10) == 0


@pytest.mark.parametrize("flooded", ["stdout", "stderr"])
def test_a_client_that_does_not_read_cannot_keep_the_proxy_from_ending(db: Path, flooded: str) -> None:
    line = '{"jsonrpc":"2.0","method":"x"}'
    flood = f"import sys\nwhile True: print({line!r}, file=sys.{flooded}, flush=True)"
    with started(db, [sys.executable, "-c", flood]) as proxy:
        time.sleep(1)
        proxy.send_signal(signal.SIGTERM)
        assert proxy.wait(8) == 128 + signal.SIGTERM


def started(db: Path, server: list[str]) -> subprocess.Popen[bytes]:
    """Start a recorder whose output nobody reads until the test does."""
    return subprocess.Popen(
        [*FIREFLY, "record", "--db", str(db), "--", *server],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
