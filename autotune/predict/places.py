"""The places that a row lies in, wide and narrow, by name.

The device, the machine, the flavour of the build; and (to a prompt, at its length) the build, how
it and its flavour compute attention, how flavour and device run models with or without experts. So
many threads of a processor are a place, too: one saturates its memory with one thread, another with
all of them.
Machines with the same GPU are one device: a second one is not a blank either. What each of them
does: :mod:`autotune.predict.place_effects`.
"""

from __future__ import annotations

from dataclasses import dataclass

from autotune.domain.engine import engine_of
from autotune.facts.devices import lookup
from autotune.features.case import Case

DEVICE, MACHINE, FLAVOUR, BUILD = range(4)
"""Positions of these among the places of a case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Width:
    """What places of one width have in common."""

    at_length: bool = False
    """Whether they are to a prompt others at each length."""
    by_attention: bool = False
    """Whether a prompt feels them the more, the more of its work is attention."""
    by_threads: bool = False
    """Whether there is one for each number of threads; where a GPU computes, none is felt."""


WIDTHS = (
    Width(),
    Width(),
    Width(),
    Width(at_length=True),
    Width(at_length=True, by_attention=True),
    Width(at_length=True, by_attention=True),
    Width(at_length=True),
    Width(at_length=True),
    Width(by_threads=True),
)
"""Of the places of a case, in their order."""


def place_names(case: Case) -> tuple[str, ...]:
    """Device, machine, flavour; build, attention by build and flavour, experts by flavour, device;
    machine again, for its threads.

    Backends of one engine share its place on a machine; each has builds of its own.
    """
    engine = f"{engine_of(case.backend).name}/{case.api}"
    device, machine = f"{device_name(case)}/{engine}", f"{case.machine_id}/{engine}"
    build = f"{machine}/{case.backend}/{case.build}"
    flavour = f"{machine}/{case.backend}/{flavour_of(case.build)}"
    fuses = "fused" if case.config.flash_attn != "off" else "plain"
    kind = "experts" if case.model.n_experts else "dense"
    attention = f"{build}/{fuses}", f"{flavour}/{fuses}"
    experts = f"{flavour}/{kind}", f"{device}/{kind}"
    return device, machine, flavour, build, *attention, *experts, machine


def flavour_of(build: str) -> str:
    """A build without the number before it: ``6077 llama.cpp-hip`` is a ``llama.cpp-hip``.

    The next number of a flavour is much like the last.
    """
    number, _, rest = build.partition(" ")
    return rest if number.isdecimal() else build


def device_name(case: Case) -> str:
    """What computes: a GPU by its name, where that tells one; else this machine, and no other.

    Drivers call one GPU by several names; cards that differ are nobody else's machine.
    """
    cards = [] if case.api == "CPU" else case.machine.gpus
    known = {found.name for card in cards if (found := lookup(card.name))}
    is_one = len(known) == 1 and sum(card.device is not None for card in cards) <= 1
    return known.pop() if is_one else case.machine_id
