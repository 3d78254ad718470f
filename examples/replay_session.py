"""Replay the session of record_session.py: the same questions, and no time server anywhere.

python examples/replay_session.py session.db
"""

import sys
from pathlib import Path

import anyio
from mcp import Client, StdioServerParameters

# The command beside this Python; plain "firefly-proxy" does where it is on the PATH.
FIREFLY_PROXY = str(Path(sys.executable).with_name("firefly-proxy"))


async def main(recording: str) -> None:
    replay = ["replay", "--db", recording, "--server", "time"]
    async with Client(StdioServerParameters(command=FIREFLY_PROXY, args=replay)) as client:
        then = await client.call_tool("get_current_time", {"timezone": "Asia/Tokyo"})
        print("recorded answer:", then.content[0].text)
        # Where an answer came from stands in its _meta, which no model reads.
        print("its source:", then.meta["io.firefly/replay"])
        never_asked = await client.call_tool("get_current_time", {"timezone": "Asia/Seoul"})
        assert never_asked.is_error
        print("never recorded:", never_asked.content[0].text)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1] if len(sys.argv) > 1 else "session.db")
