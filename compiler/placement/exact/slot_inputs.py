"""The model's inputs in the slot model: each goes to a device once, with the batch of the first slot that reads it.

That is what `schedule.simulate` does: a segment waits for the inputs that it reads, not for those of later ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ortools.sat.python import cp_model

Readers = Sequence[Mapping[int, Any]]
"""For each node that reads an input, its literal by slot."""


def first_reads(model: cp_model.CpModel, readers: Readers, slots: Sequence[int], name: str) -> dict[int, Any]:
    """For each slot of one device where an input may be read, a literal that says that it is read there first."""
    found: dict[int, Any] = {}
    for slot in slots:
        here = [at[slot] for at in readers if slot in at]
        if not here:
            continue
        first = found[slot] = model.new_bool_var(f"{name}~{slot}")
        model.add_bool_or([first.negated(), *here])
        for literal in here:
            model.add_bool_or([literal.negated(), *found.values()])
    model.add_at_most_one(found.values())
    return found


def wait_for_inputs(
    model: cp_model.CpModel,
    flows: dict[tuple[int, int], Any],
    batch: tuple[int, Any],
    readers: Readers,
    slots: Sequence[int],
) -> None:
    """Adds to `flows` that slots which read an input wait for its batch, given as its key and its literal."""
    key, sent = batch
    for slot in slots:
        here = [at[slot] for at in readers if slot in at]
        if here and (key, slot) not in flows:
            flows[key, slot] = model.new_bool_var(f"flow{key}>{slot}")
        for literal in here:
            model.add_bool_or([sent.negated(), literal.negated(), flows[key, slot]])
