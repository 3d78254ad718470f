"""Record a session: the client talks with the real time server, and every reply is on disk before it arrives.

python examples/record_session.py session.db
"""

import sys
from pathlib import Path

import anyio
from mcp import Client, StdioServerParameters

# The command beside this Python; plain "firefly-proxy" does where it is on the PATH.
FIREFLY_PROXY = str(Path(sys.executable).with_name("firefly-proxy"))
TIME_SERVER = [sys.executable, "-m", "mcp_server_time", "--local-timezone=UTC"]


async def main(recording: str) -> None:
    record = ["record", "--db", recording, "--name", "time", "--", *TIME_SERVER]
    async with Client(StdioServerParameters(command=FIREFLY_PROXY, args=record)) as client:
        tools = await client.list_tools()
        print("tools:", ", ".join(tool.name for tool in tools.tools))
        now = await client.call_tool("get_current_time", {"timezone": "Asia/Tokyo"})
        print("now in Tokyo:", now.content[0].text)
        question = {"source_timezone": "Europe/Paris", "time": "09:30", "target_timezone": "Asia/Tokyo"}
        meeting = await client.call_tool("convert_time", question)
        print("09:30 in Paris:", meeting.content[0].text)
    print("recorded in", recording)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1] if len(sys.argv) > 1 else "session.db")
