"""The port: one wake-up a burst, nothing lost, nothing left."""

from __future__ import annotations

import select

import pytest

from cmgmux import _native
from cmgmux.exceptions import UsageError

DEADLINE_S = 20.0


def readable(port: _native.Port, *, within_s: float) -> bool:
    """Whether the port's descriptor becomes readable."""
    return bool(select.select([port.fileno()], [], [], within_s)[0])


def test_many_services_wake_the_loop_far_less_often_than_they_speak() -> None:
    port = _native.Port()
    roles = [_native.SampleRole("{}") for _ in range(8)]
    for role in roles:
        role.start(port)
    kinds: dict[int, list[str]] = {role.id: [] for role in roles}
    batches = 0
    while any("started" not in seen for seen in kinds.values()):
        assert readable(port, within_s=DEADLINE_S)
        batches += 1
        for item in port.drain():
            if isinstance(item, _native.ServiceEvent):
                kinds[item.service].append(item.kind)
    assert port.wakeups <= batches
    for role in roles:
        role.request_stop(0.0)
    while any("ended" not in seen for seen in kinds.values()):
        assert readable(port, within_s=DEADLINE_S)
        for item in port.drain():
            if isinstance(item, _native.ServiceEvent):
                kinds[item.service].append(item.kind)
    assert all(seen == ["started", "ended"] for seen in kinds.values())
    assert not readable(port, within_s=0.0)


def test_the_descriptor_stays_readable_while_more_is_left() -> None:
    port = _native.Port()
    role = _native.SampleRole("{}")
    role.start(port)
    role.request_stop(0.0)
    kinds: list[str] = []
    while len(kinds) < 2:
        assert readable(port, within_s=DEADLINE_S)
        kinds += [item.kind for item in port.drain(1) if isinstance(item, _native.ServiceEvent)]
    assert kinds == ["started", "ended"]


def test_a_closed_port_says_so() -> None:
    port = _native.Port()
    port.close()
    port.close()
    with pytest.raises(UsageError, match="closed"):
        port.drain()
    with pytest.raises(UsageError, match="closed"):
        _native.SampleRole("{}").start(port)
