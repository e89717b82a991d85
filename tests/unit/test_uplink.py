"""What a device sends about updates, by its real shell, channel and cycle: never more than its bucket has, and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.uplink import Conditions, Net
from tests.support.virtual_time import run_virtual

Scenario = Callable[[Net], Awaitable[None]]


def on_net(conditions: Conditions, scenario: Scenario, seed: int = 0) -> Net:
    """Run a scenario to its end, in virtual time."""

    async def run() -> Net:
        async with asyncio.TaskGroup() as group:
            net = Net(conditions, seed, group)
            async with net.fog:
                await net.open()
                net.start()
                await scenario(net)
                await net.kill()
                net.close()
        return net

    return run_virtual(run())


def excess(uploads: list[tuple[float, int]], conditions: Conditions) -> float:
    """By how much the worst window has more than burst + rate * dt; at most 0 is right."""
    # sent up to and with i, less what came in since then: the bound is that this rises by at most the burst
    above = [total - conditions.rate * at for (at, _), total in zip(uploads, accumulate(n for _, n in uploads), strict=True)]
    below = [value - size for value, (_, size) in zip(above, uploads, strict=True)]
    lowest = accumulate(below, min)
    return max((value - least for value, least in zip(above, lowest, strict=True)), default=0.0) - conditions.burst


Steps = st.lists(
    st.tuples(st.sampled_from(["release", "release", "cut", "kill", "block"]), st.sampled_from([0.0, 0.5, 3.0, 20.0, 120.0])),
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(
    steps=Steps,
    conditions=st.builds(
        Conditions,
        rate=st.sampled_from([50.0, 500.0, 5000.0]),
        burst=st.sampled_from([2048, 4096, 20_000]),
        size=st.sampled_from([500, 20_000]),
        slow_s=st.sampled_from([0.0, 2.0, 30.0]),
        lose=st.sampled_from([0.0, 0.5]),
        give_back=st.sampled_from([0.0, 0.5]),
        tell=st.sampled_from([0.0, 0.5, 1.0]),
    ),
    seed=st.integers(0, 99),
)
def test_whatever_happens_no_window_has_more_than_its_bytes(
    steps: list[tuple[str, float]], conditions: Conditions, seed: int
) -> None:
    async def scenario(net: Net) -> None:
        number = 0
        for what, seconds in steps:
            match what:
                case "release":
                    await net.release(number)
                    number += 1
                case "cut":
                    net.broker.cut("device")
                case "block":
                    net.broker.block("device")
                case "kill":
                    await net.kill()
                    net.broker.unblock("device")
                    net.start()
            await asyncio.sleep(seconds)
        net.broker.unblock("device")
        await asyncio.sleep(300)

    net = on_net(conditions, scenario, seed)
    assert excess(net.uploads, conditions) <= 1e-6
    assert net.device.memory.balance.worst < 1e-5
    if conditions.lose == 0 and any(what == "release" for what, _ in steps):
        assert net.taken


def test_out_of_tokens_it_waits_and_does_not_train() -> None:
    conditions = Conditions(rate=10.0, burst=4096, size=2000)

    async def scenario(net: Net) -> None:
        await net.release(0)
        await asyncio.sleep(600)
        assert net.cycle.state == "idle"
        number = 0
        while net.cycle.state != "waiting":
            number += 1
            assert number < 20
            trained = net.device.memory.updates_sent
            await net.release(number)
            await asyncio.sleep(1)
        cycle, now = net.cycle, asyncio.get_running_loop().time()
        words = cycle.reason(now).split()
        assert " ".join(words[:3]) == "out of tokens:"
        assert int(words[3]) < int(words[5])
        assert net.device.memory.updates_sent == trained
        assert cycle.facts(now)["tokens_bytes"] == int(words[3])
        assert cycle.release == number  # it serves all the same
        await asyncio.sleep((int(words[5]) - int(words[3])) / conditions.rate + 1)
        assert net.device.memory.updates_sent == trained + 1
        assert cycle.reason(asyncio.get_running_loop().time()) == ""

    on_net(conditions, scenario)


def test_between_two_trainings_it_measures_one_release() -> None:
    async def scenario(net: Net) -> None:
        await net.release(0)
        await asyncio.sleep(600)
        for number in range(1, 40):
            await net.release(number)
            await asyncio.sleep(10)

    net = on_net(Conditions(rate=20.0, burst=4096), scenario)
    kinds = ["trained" if update.sections else "measured" for update in net.taken.values()]
    assert kinds.count("trained") >= 4
    assert "measured measured" not in " ".join(kinds)
    assert kinds.count("measured") >= 1
    measured = [update.report_on for update in net.taken.values() if "test.mse" in update.tally]
    assert len(measured) == len(set(measured))  # nobody's measure is counted twice


def test_without_a_rate_nothing_waits() -> None:
    async def scenario(net: Net) -> None:
        for number in range(5):
            await net.release(number)
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.1)
        assert net.device.memory.updates_sent == 5
        assert "tokens_bytes" not in net.cycle.facts(0.0)

    on_net(Conditions(rate=0.0), scenario)


def test_a_new_life_does_not_begin_with_a_burst() -> None:
    conditions = Conditions(rate=10.0, burst=4096)

    async def scenario(net: Net) -> None:
        await asyncio.sleep(1000)
        await net.kill()
        net.start()
        await net.release(0)
        await asyncio.sleep(5)

    net = on_net(conditions, scenario)
    assert sum(size for _, size in net.uploads) <= 10.0 * 6


def test_an_update_is_no_larger_than_the_burst() -> None:
    async def scenario(net: Net) -> None:
        await net.release(0, step=0.01)  # all of its 20 000 parameters have a symbol
        await asyncio.sleep(60)

    net = on_net(Conditions(rate=1000.0, burst=4096, size=20_000), scenario)
    assert [bool(update.sections) for update in net.taken.values()] == [True]
    assert 500 < sum(size for _, size in net.uploads) <= 4096


def test_a_codec_that_cannot_be_made_coarser_is_refused_with_a_reason() -> None:
    async def scenario(net: Net) -> None:
        await net.release(0, codec="dense")
        await asyncio.sleep(60)
        assert "bytes in dense" in net.cycle.reason(60.0)
        assert "uplink.burst" in net.cycle.reason(60.0)

    net = on_net(Conditions(rate=1000.0, burst=4096, size=20_000), scenario)
    assert [update.sections for update in net.taken.values()] == [()]
    assert net.device.facts[0].name == "update_refused"


def test_what_no_codec_could_send_waits_and_nothing_more_is_trained_for_it() -> None:
    async def scenario(net: Net) -> None:
        for number in range(3):
            await net.release(number, codec="dense")
            await asyncio.sleep(60)
        assert [fact.name for fact in net.device.facts].count("update_refused") == 1
        assert net.device.memory.residual is not None
        assert np.any(net.device.memory.residual)
        assert "uplink.burst" in net.cycle.reason(60.0)
        await net.release(3, step=0.01)
        await asyncio.sleep(60)

    net = on_net(Conditions(rate=1000.0, burst=4096, size=20_000), scenario)
    sections = [section for update in net.taken.values() for section in update.sections]
    assert [(section.base, section.count) for section in sections] == [(3, 1)]
    assert sections[0].weight == 4, "two trainings on two examples each"
    assert net.device.memory.weight_owed == 0
    assert net.device.memory.balance.trained != 0
    assert net.device.memory.balance.worst < 1e-5


@pytest.mark.parametrize("max_upload_s", [0.0, 4.0])
def test_updates_are_made_to_arrive_in_time(max_upload_s: float) -> None:
    """A link that needs about ten seconds for any update, and a cap of four: what is sent shrinks, but never to nothing."""

    async def scenario(net: Net) -> None:
        for number in range(12):
            await net.release(number)
            await asyncio.sleep(60)

    net = on_net(Conditions(rate=0.0, max_upload_s=max_upload_s, slow_s=20.0, size=20_000), scenario)
    sizes = [len(update.sections[0].payload) for update in net.taken.values()]
    assert len(sizes) == 12
    if max_upload_s:
        assert min(sizes) > 30
        assert max(sizes[-4:]) <= 1024 < sizes[0] / 2
        assert net.device.memory.balance.worst < 1e-5
    else:
        assert min(sizes) > sizes[0] / 2
