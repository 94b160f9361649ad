"""Verify: does the trace bear out what each family's apply promised?"""

import re
from collections import Counter
from dataclasses import replace
from typing import Any

from profiler.optims import FAMILY
from profiler.record import Evidence
from profiler.subject import Subject
from profiler.tracing import Trace


def verify(evidence: Evidence, trace: Trace, subject: Subject) -> Evidence:
    """The evidence with `confirmed`, what was observed per step, and a finding when it is not borne out.

    What appears among a GPU's kernels is counted there, and else among operators, ranges and launching calls, too.

    confirmed stays None where there was nothing to look at: CUDA graphs replay kernels without operators, and a
    baseline choice may leave no mark.
    """
    names, kernels = trace.names, trace.kernel_names

    def times(pattern: str) -> int | float:
        return trace.per_step(count(pattern, kernels) or count(pattern, names))

    observed: dict[str, Any] = {}
    findings = []
    for what, pattern in evidence.must_appear.items():
        observed[what] = times(pattern)
        if not observed[what]:
            findings.append(f"the trace shows no {what}")
    for what, pattern in evidence.must_not_appear.items():
        observed[what] = times(pattern)
        if observed[what]:
            findings.append(f"the trace shows {what}: {_example(pattern, names)}")
    is_checked = bool(observed)
    if check := FAMILY[evidence.family].check:
        facts, finding = check(evidence, trace, subject)
        observed |= facts
        is_checked |= finding is not None
        findings += [finding] if finding else []
    confirmed = not findings if is_checked else None
    return replace(evidence, observed=observed, confirmed=confirmed, finding="; ".join(findings))


def count(pattern: str, names: Counter[str]) -> int:
    return sum(number for name, number in names.items() if re.search(pattern, name))


def _example(pattern: str, names: Counter[str]) -> str:
    return next(name for name in names if re.search(pattern, name))[:80]
