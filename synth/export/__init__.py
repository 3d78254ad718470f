"""Tasks written as what trainers and evaluators read."""

FORMATS = {
    "trl-sft": "synth.export.trl_sft",
    "trl-grpo": "synth.export.trl_grpo",
    "verl": "synth.export.verl",
    "sharegpt": "synth.export.sharegpt",
    "openai": "synth.export.openai",
    "nemo-gym": "synth.export.nemo_gym",
    "inspect": "synth.export.inspect",
}
"""Name → the module that has its `write(folder, data)` and `README`. Strings, so that `--help` loads none."""

TRAJECTORIES = ("trl-sft", "sharegpt", "openai")
"""These hold whole conversations and take rollouts; the others hold prompts and take a replay server."""
