"""Questions with known answers, worked backwards from a recording."""
