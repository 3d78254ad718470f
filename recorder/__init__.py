"""What happened: exchanges with real servers, written down as they pass."""
