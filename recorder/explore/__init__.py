"""Explore real servers along a graph of their tools, through the recorder."""
