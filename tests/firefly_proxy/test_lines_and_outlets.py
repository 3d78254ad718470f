import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from firefly_proxy.lines import LineSplitter
from firefly_proxy.outlet import outlet_to


@pytest.mark.parametrize(
    "text", [b"", b"a", b"a\n", b"\n\n", b"a\nbc\n\nd", b"x" * 1000 + b"\n" + b"y\r\n" * 50]
)
@pytest.mark.parametrize("seed", range(5))
def test_lines_are_the_same_however_the_stream_is_cut(text: bytes, seed: int) -> None:
    cuts = random.Random(seed)
    splitter, lines, at = LineSplitter(), [], 0
    while at < len(text):
        size = cuts.choice([1, 2, 7, 400])
        lines += splitter.feed(text[at : at + size])
        at += size
    lines += splitter.feed(b"")
    assert lines == [line for line in text.replace(b"\n", b"\n\0").split(b"\0") if line]


@pytest.fixture(params=["pipe", "socket"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """A descriptor to read and one to write, both in blocking mode."""
    if request.param == "pipe":
        reading, writing = os.pipe()
    else:
        reading, writing = (end.detach() for end in socket.socketpair())
    yield reading, writing
    for fd in (reading, writing):
        os.close(fd)


def test_a_reader_that_does_not_read_blocks_nobody(ends: tuple[int, int]) -> None:
    reading, writing = ends
    outlet = outlet_to(writing)
    sent = b"".join(b"%d\n" % number for number in range(300_000))
    assert outlet.write(sent), "more than fits waits"
    assert os.get_blocking(writing), "the descriptor's mode is not ours to change"
    received = bytearray()
    while len(received) < len(sent):
        received += os.read(reading, 1 << 20)
        outlet.flush()
    assert bytes(received) == sent
    assert not outlet.queued
    assert not outlet.write(b"fits\n")
    assert os.read(reading, 100) == b"fits\n"


def test_a_reader_that_went_away_is_noticed(ends: tuple[int, int]) -> None:
    reading, writing = ends
    outlet = outlet_to(writing)
    os.dup2(os.open(os.devnull, os.O_RDONLY), reading)
    assert outlet.write(b"x\n")
    assert outlet.broken


def test_a_file_takes_what_is_written(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        outlet_to(file.fileno()).write_all(b"y" * 10_000)
    assert (tmp_path / "out").read_bytes() == b"y" * 10_000
