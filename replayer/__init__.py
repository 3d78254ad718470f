"""What would have happened: answers to calls, from a recording alone."""
