"""Learning to answer those questions, offline."""
