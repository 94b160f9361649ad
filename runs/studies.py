"""Studies: sweeps that ask one question each of many combos, batches, resolutions or models.

- one_at_a_time: what does each choice buy alone?
- around: what does the stack gain or lose when one of its choices is exchanged for another of the same family?
- leave_one_out: what does the whole stack lose without each of its choices?
- pairs: do two choices help each other, or buy the same thing twice? Interaction is
  speedup(A and B) / (speedup(A) x speedup(B)); 1 is none.
- scaling_batch, scaling_resolution, scaling_model: where does the stack start and stop to pay?
- covering: does any pair of choices break something? A covering array of strength 2: every pair that why_not allows is
  in some run (greedy, after AETG: Cohen et al., IEEE TSE 23(7), 1997).

The stack is what the user chose per family, else a good one for the mode and the device.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations
from typing import Final

from profiler.combo import BASELINE, FAMILIES, Combo, applies, choices, name_choice
from profiler.machine import Machine
from profiler.why_not import why_not
from profiler.workload import ZOO, Workload
from runs.rungs import REPEAT, Ladder, Options, Rung, checked_families

_STACKS = {
    ("inference", "cuda"): Combo(
        attention="sdpa", precision="bf16", memory_format="channels_last", compilation="reduce_overhead"
    ),
    ("train", "cuda"): Combo(
        attention="sdpa",
        precision="bf16_amp",
        memory_format="channels_last",
        optimizer="adamw_fused",
        compilation="default",
    ),
    ("inference", "cpu"): Combo(attention="sdpa", memory_format="channels_last", compilation="default"),
    # not compiled in channels_last: torch 2.13 loses gradients so on a CPU (docs/LOG.md)
    ("train", "cpu"): Combo(attention="sdpa", optimizer="adamw_fused", compilation="default"),
}
_SIDES = (0.5, 0.75, 1.0, 1.5, 2.0)  # of the model's own resolution

SEARCHING: Final = "max_autotune"  # takes many minutes a run: one run has it, and no pair asks for it

Pair = frozenset[tuple[str, str]]  # two (family, choice)


def stack(workload: Workload, options: Options) -> Combo:
    """The combo that a study takes apart or scales. Raises ValueError for more than one choice of a family."""
    lists = checked_families(options.families, workload.mode)
    several = [family for family, chosen in lists.items() if len(chosen) > 1]
    if several:
        raise ValueError(f"this study takes one choice of {', '.join(several)}: name one, or run a grid")
    if not lists:
        return _STACKS["train" if workload.mode == "train" else "inference", workload.device]
    chosen = Combo.from_dict({family: one for family, (one,) in lists.items()})
    if chosen == BASELINE:
        raise ValueError(
            "the stack is the baseline itself: what you name is the whole stack, so name more than the baseline's "
            "choices, or none for the default"
        )
    return chosen


def one_at_a_time(workload: Workload, options: Options, machine: Machine | None) -> list[Rung]:
    """The baseline, then every other choice of every family alone."""
    ladder = Ladder(workload)
    for family in FAMILIES:
        for choice in choices(family)[1:] if applies(family, workload.mode) else ():
            ladder.branch(f"{name_choice(family, choice)} alone", **{family: choice})
    return ladder.end()


def leave_one_out(workload: Workload, options: Options, machine: Machine | None) -> list[Rung]:
    """The stack, then the stack without each of its choices."""
    ladder, whole = Ladder(workload), stack(workload, options)
    ladder.branch("the whole stack", **whole.to_dict())
    for family, choice in whole.difference(BASELINE).items():
        without = whole.to_dict() | {family: choices(family)[0]}
        ladder.branch(f"the stack without {name_choice(family, choice)}", **without)
    return ladder.end()


def around(workload: Workload, options: Options, machine: Machine | None) -> list[Rung]:
    """The stack, then the stack with one choice exchanged: every other choice of every family, or of those to vary."""
    ladder, whole = Ladder(workload), stack(workload, options)
    ladder.branch("the whole stack", **whole.to_dict())
    exchanged = [(family, one) for family, one in _varied(options.vary, workload.mode) if one != getattr(whole, family)]
    if not exchanged:
        raise ValueError(f"vary={options.vary} is what the stack has already: name another choice, or a family")
    for family, choice in exchanged:
        ladder.branch(f"the stack with {family}={choice}", **whole.to_dict() | {family: choice})
    return ladder.end()


def _varied(vary: str, mode: str) -> list[tuple[str, str]]:
    """(family, choice) in Combo's order: all of each family that is named alone, or just the choices that are named."""
    possible = [family for family in FAMILIES if applies(family, mode)]
    wanted = ["=".join(part.strip() for part in name.split("=")) for name in vary.split(",")] if vary else possible
    if unknown := sorted({name.partition("=")[0] for name in wanted} - set(possible)):
        raise ValueError(f"vary: no family {', '.join(unknown)} in mode={mode}: choose from {', '.join(possible)}")
    named = {(family, choice) for family, sign, choice in (name.partition("=") for name in wanted) if sign}
    known = [(family, choice) for family in possible for choice in choices(family)]
    if wrong := sorted(named - set(known)):
        family, choice = wrong[0]
        raise ValueError(f"vary: {family} has no choice {choice}: choose from {', '.join(choices(family))}")
    return [(family, one) for family, one in known if (family, one) in named or (family in wanted and one != SEARCHING)]


def pairs(workload: Workload, options: Options, machine: Machine | None) -> list[Rung]:
    """Each choice of the stack alone, then every two of them."""
    ladder, chosen = Ladder(workload), stack(workload, options).difference(BASELINE)
    for family, choice in chosen.items():
        ladder.branch(f"{name_choice(family, choice)} alone", **{family: choice})
    for two in combinations(chosen.items(), 2):
        ladder.branch(" with ".join(name_choice(*item) for item in two), **dict(two))
    return ladder.end()


def scaling_batch(workload: Workload, options: Options, machine: Machine | None) -> list[Rung]:
    """Baseline and stack at doubled batches; where one does not fit, larger ones are not tried."""
    batches = [2**power for power in range(options.max_batch.bit_length()) if 2**power <= options.max_batch]
    if not batches:
        raise ValueError(f"max_batch must be at least 1, not {options.max_batch}")
    workloads = [replace(workload, batch=batch) for batch in batches]
    return _scaled(workloads, stack(workload, options), lambda one: f"at batch {one.batch}")


def scaling_resolution(workload: Workload, options: Options, machine: Machine | None) -> list[Rung]:
    """Baseline and stack from half to twice the model's own resolution."""
    if not workload.resolution:
        raise ValueError("scaling_resolution needs to know where to start: give the workload a resolution")
    sides = dict.fromkeys(int(workload.resolution * factor) for factor in _SIDES)
    workloads = [replace(workload, resolution=side) for side in sides]
    return _scaled(workloads, stack(workload, options), lambda one: f"at {one.resolution} px")


def scaling_model(workload: Workload, options: Options, machine: Machine | None) -> list[Rung]:
    """Baseline and stack on the models that were asked for, the smallest first."""
    names = sorted(_models(options.models), key=lambda name: ZOO[name].million_parameters)
    workloads = [replace(workload, model=name, resolution=ZOO[name].resolution) for name in names]
    size = {name: f"{ZOO[name].million_parameters:g} M parameters" for name in names}
    return _scaled(workloads, stack(workload, options), lambda one: f"on {one.model}, {size[one.model]}")


def _models(which: str) -> list[str]:
    """Variants differ from sd15 in one thing only; the zoo's models differ in everything."""
    if which == "all":
        return list(ZOO)
    if which == "variants":
        return [name for name, model in ZOO.items() if name == "sd15" or model.variant_of == "sd15"]
    if which == "zoo":
        return [name for name, model in ZOO.items() if not model.variant_of]
    raise ValueError(f"unknown models {which!r}: choose one of zoo, variants, all")


def _scaled(workloads: list[Workload], whole: Combo, at: Callable[[Workload], str]) -> list[Rung]:
    rungs = []
    for one in workloads:
        where = at(one)
        rungs.append(Rung(combo=BASELINE, workload=one, reason=f"the baseline {where}", role="baseline"))
        rungs.append(Rung(combo=whole, workload=one, reason=f"the stack {where}"))
    return [*rungs, replace(rungs[0], reason=REPEAT, role="baseline_repeat")]


def covering(workload: Workload, options: Options, machine: Machine | None) -> list[Rung]:
    """A covering array of strength 2 over all choices that can run here."""
    ladder = Ladder(workload)
    for combo, new in covering_array(workload, machine):
        ladder.branch(f"{new} pairs of choices that no earlier run has", **combo.to_dict())
    searched = replace(stack(workload, Options()), compilation=SEARCHING)
    ladder.branch("the one run that searches for kernels", **searched.to_dict())
    return ladder.end()


def covering_array(
    workload: Workload, machine: Machine | None, *, done: Iterable[Combo] = ()
) -> list[tuple[Combo, int]]:
    """Combos that hold every allowed pair of choices, and how many new pairs each brings. Deterministic.

    Pairs that combos in `done` hold are left out.
    """
    open_pairs = allowed_pairs(workload, machine).difference(*map(_pairs_of, done))
    found = []
    while open_pairs:
        combo = _grow(min(open_pairs, key=lambda pair: sorted(pair)), open_pairs, workload, machine)
        covered = open_pairs & _pairs_of(combo)
        open_pairs -= covered
        found.append((combo, len(covered)))
    return found


def allowed_pairs(workload: Workload, machine: Machine | None) -> set[Pair]:
    """Every pair of choices of two families that some combo which can run here holds."""
    items = [
        (family, choice)
        for family in FAMILIES
        if applies(family, workload.mode)
        for choice in choices(family)
        if choice != SEARCHING
    ]
    return {
        frozenset((one, two))
        for one, two in combinations(items, 2)
        if one[0] != two[0] and _complete(dict((one, two)), workload, machine) is not None
    }


def _grow(seed: Pair, open_pairs: set[Pair], workload: Workload, machine: Machine | None) -> Combo:
    """A combo that holds the seed, and family by family the choice that brings most new pairs."""
    chosen = dict(seed)
    for family in FAMILIES:
        if family in chosen or not applies(family, workload.mode):
            continue
        possible = [
            choice
            for choice in choices(family)
            if choice != SEARCHING and _complete(chosen | {family: choice}, workload, machine) is not None
        ]
        gains = [_gain(family, choice, chosen, open_pairs) for choice in possible]
        chosen[family] = possible[gains.index(max(gains))]
    return Combo.from_dict(chosen)


def _gain(family: str, choice: str, chosen: dict[str, str], open_pairs: set[Pair]) -> int:
    return sum(frozenset(((family, choice), item)) in open_pairs for item in chosen.items())


def _complete(chosen: dict[str, str], workload: Workload, machine: Machine | None) -> Combo | None:
    """A combo with these choices that can run here: the baseline in all other families, or another precision."""
    for precision in (None, *choices("precision")):
        if precision is not None and "precision" in chosen:
            return None
        combo = Combo.from_dict(chosen if precision is None else chosen | {"precision": precision})
        if machine is None or why_not(combo, workload, machine) is None:
            return combo
    return None


def _pairs_of(combo: Combo) -> set[Pair]:
    return {frozenset(two) for two in combinations(combo.to_dict().items(), 2)}
