"""Machines: their JSON form and what they are called."""

import json

from profiler.machine import Machine
from tests.support.run_folders import FIXTURE_CPU, FIXTURE_GPU


def test_a_machine_survives_json() -> None:
    for machine in (FIXTURE_CPU, FIXTURE_GPU):
        assert Machine.from_dict(json.loads(json.dumps(machine.to_dict()))) == machine


def test_facts_of_a_later_version_are_passed_over() -> None:
    assert Machine.from_dict(FIXTURE_CPU.to_dict() | {"quantum_bits": 3}) == FIXTURE_CPU


def test_a_machine_is_named_after_the_device_that_runs() -> None:
    assert (FIXTURE_GPU.label, FIXTURE_CPU.label) == ("Fixture GPU", "Fixture CPU")
    assert FIXTURE_GPU.has_cuda
    assert not FIXTURE_CPU.has_cuda
    assert FIXTURE_GPU.capability_text == "9.0"
