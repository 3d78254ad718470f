"""The MCP wire, live and replayed, and the commands."""
