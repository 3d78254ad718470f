"""The bench of a 4B model's training runs: here small, on a CPU, where its figures say nothing of 4B."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bench import train_4b

RATES = {
    "old_log_probabilities_tokens_a_s",
    "old_log_probabilities_tflops",
    "old_log_probabilities_mfu",
    "old_log_probabilities_of_matmul",
    "old_log_probabilities_peak_gib",
    "training_tokens_a_s",
    "training_tflops",
    "training_mfu",
    "training_of_matmul",
    "training_peak_gib",
}
OF_MODE = RATES | {"trained_weights", "optimizer_step_s", "optimizer_peak_gib", "step"}
OF_STEP = {"rollouts", "rollout_s", "old_log_probabilities_s", "training_s", "optimizer_s", "step_s"}
OF_STEP |= {"rollouts_a_s", "rollouts_a_s_generating_alone"}
OF_GENERATION = {
    *("prefill_tokens_a_s", "prefill_tflops", "prefill_mfu", "prefill_of_matmul", "prefill_peak_gib"),
    *("decode_tokens_a_s", "decode_step_ms", "decode_gb_a_s", "decode_peak_gib"),
}


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for each in value.values():
            yield from numbers(each)
    else:
        yield value


def test_a_tiny_model_goes_through_every_part_and_is_told_apart(tmp_path: Path) -> None:
    options = ["--tiny", "--device", "cpu", "--peak-tflops", "1", "--json", str(tmp_path / "figures.json")]
    ended = subprocess.run(
        [sys.executable, train_4b.__file__, *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    *table, line = ended.stdout.splitlines()
    found = json.loads(line)
    assert json.loads((tmp_path / "figures.json").read_text(encoding="utf-8")) == found
    assert found["bench"] == "train_4b"
    assert found["tiny"] is True
    assert found["weights"] < 1_000_000
    assert "say nothing of 4B" in found["note"]
    assert found["note"] in table[0]
    assert found["generation"].keys() == OF_GENERATION
    assert found["modes"].keys() == {"lora", "full"}
    assert {"machine", "commit", "versions", "device", "shape", "matmul_tflops"} <= found.keys()
    for figures in found["modes"].values():
        assert figures.keys() == OF_MODE
        assert figures["step"].keys() == OF_STEP
        parts = ("rollout_s", "old_log_probabilities_s", "training_s", "optimizer_s")
        assert figures["step"]["step_s"] == pytest.approx(
            sum(figures["step"][part] for part in parts), rel=0.01
        )
    assert found["modes"]["full"]["trained_weights"] == found["weights"]
    assert all(value > 0 for value in numbers(found["generation"]))
    assert all(value > 0 for value in numbers(found["modes"]))


def test_without_a_gpu_and_without_tiny_one_line_says_what_to_do() -> None:
    with pytest.raises(SystemExit) as stopped:
        train_4b.main(["--device", "cpu"])
    assert stopped.value.code == (
        "train_4b: 4B weights need a GPU; --tiny --device cpu shows that the bench runs without one"
    )


def test_what_does_not_fit_is_told_in_the_place_of_figures() -> None:
    def too_much() -> dict[str, float]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    assert train_4b.measured(too_much) == {"failed": "CUDA out of memory"}


def test_flops_are_those_of_the_4b_shape() -> None:
    """3.63e9 weights in the layers and 0.39e9 in the head; heads of 4096 in all, in 36 layers."""
    forward = train_4b.forward_flops(train_4b.config(tiny=False), 1, 1, scored=1)
    layer = 2560 * (4096 + 1024 + 1024 + 4096) + 3 * 2560 * 9728
    assert forward.weights == 2 * (36 * layer + 2560 * 151_936)
    assert forward.attention == 4 * 36 * 4096
    assert forward.trained("full") == 3 * forward.total
    assert forward.trained("lora") == 2 * forward.weights + 3 * forward.attention
