"""The configurations for several GPUs or machines say what accelerate understands, and nothing else.

A key that accelerate does not know under `fsdp_config` it would pass over without a word.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, patch_environment
from accelerate.utils.launch import prepare_multi_gpu_env
from torch.distributed.fsdp import StateDictType
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

import train

CONFIGS = sorted((Path(train.__file__).parent / "accelerate").glob("*.yaml"))
PROCESSES = {
    "eight_gpus": 8,
    "four_nodes": 4 * 8,
    "one_gpu": 1,
    "six_of_eight_gpus": 6,
    "two_processes_cpu": 2,
}
SHARDED = {"eight_gpus", "four_nodes", "six_of_eight_gpus"}

each = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
each_sharded = pytest.mark.parametrize(
    "path", [path for path in CONFIGS if path.stem in SHARDED], ids=lambda path: path.stem
)


def launched(path: Path) -> argparse.Namespace:
    """Return what `accelerate launch --config_file` makes of a file."""
    # Port 0: whichever is free, as others may be training on this machine.
    options = ["--config_file", str(path), "--main_process_port", "0", "train.py"]
    found, *_ = _validate_launch_command(launch_command_parser().parse_args(options))
    assert isinstance(found, argparse.Namespace)
    return found


def test_there_is_a_file_for_each_machine_room() -> None:
    assert {path.stem for path in CONFIGS} == PROCESSES.keys()


@each
def test_a_file_is_loaded_by_accelerate_as_it_stands(path: Path) -> None:
    loaded = load_config_from_file(str(path))  # raises where it does not know a key
    assert isinstance(loaded, ClusterConfig)
    stated = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {name: loaded.to_dict().get(name) for name in stated} == stated
    assert loaded.num_processes == PROCESSES[path.stem]
    assert loaded.num_processes % loaded.num_machines == 0
    assert (loaded.distributed_type == DistributedType.FSDP) == (path.stem in SHARDED)


@each
def test_every_key_of_sharding_is_one_that_accelerate_knows(path: Path) -> None:
    known = {action.dest for action in launch_command_parser()._actions}
    loaded = load_config_from_file(str(path))
    assert set(loaded.fsdp_config) <= known
    assert all(name.startswith("fsdp_") for name in loaded.fsdp_config)


@each
def test_what_is_launched_is_what_a_file_says(path: Path) -> None:
    stated, found = load_config_from_file(str(path)), launched(path)
    assert found.num_processes == PROCESSES[path.stem]
    assert found.num_machines == stated.num_machines
    assert found.mixed_precision == stated.mixed_precision
    assert found.use_fsdp is (path.stem in SHARDED)
    assert {name: getattr(found, name) for name in stated.fsdp_config} == stated.fsdp_config


@each_sharded
def test_weights_gradients_and_optimizer_are_sharded_by_fsdp2(path: Path) -> None:
    with patch_environment(**prepare_multi_gpu_env(launched(path))):
        plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.auto_wrap_policy is transformer_auto_wrap_policy
    assert plugin.state_dict_type is StateDictType.FULL_STATE_DICT
    assert plugin.cpu_ram_efficient_loading is True
    # TRL's own checkpointing is on where there is a GPU: of the two there must be one.
    assert plugin.activation_checkpointing is False
