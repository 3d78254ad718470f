"""What `train.verl_tool` imports of verl 0.9.1, with the same interface, for where that is not installed."""
