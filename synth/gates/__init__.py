"""What makes a task trustworthy: one check a file, in the order in which they are run.

The executable gates come first: they need the recording alone, and `firefly synth check` runs them again.
Then come those that look at the whole set, then those that ask models, and the real servers at last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from synth.gates import (
    ambiguity,
    derivation,
    determinism,
    duplicates,
    guessability,
    leak,
    minimality,
    provenance,
    read_only,
    replay,
    validity,
)
from synth.task import Task, Verdict
from synth.world import World

Gate = Callable[[Task, World], Verdict]
"""Judges one task."""

SetGate = Callable[[Sequence[Task], World], list[Verdict]]
"""Judges each task of a set by the others, in order: an earlier one is kept before a later one."""

GATES: dict[str, Gate] = {
    validity.NAME: validity.validity,
    derivation.NAME: derivation.derivation,
    provenance.NAME: provenance.provenance,
    leak.NAME: leak.leak,
    ambiguity.NAME: ambiguity.ambiguity,
    minimality.NAME: minimality.minimality,
    determinism.NAME: determinism.determinism,
    replay.NAME: replay.replay,
    read_only.NAME: read_only.read_only,
}

SET_GATES: dict[str, SetGate] = {
    guessability.NAME: guessability.guessability,
    duplicates.NAME: duplicates.duplicates,
}
