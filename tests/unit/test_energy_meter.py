"""The meter of a node: totals that never fall, idle and active, and what the node took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemw.telemetry.energy.meter import COMPONENTS, Energy, Meter, Scope, Usage
from edgemw.telemetry.energy.reader import Moment, Reader
from edgemw.telemetry.energy.tree import Unreadable

START = Usage(100.0, 1000.0, 10.0)
ONE = Scope(cores=1, machine_cores=1)


class Told(Reader):
    """A source that says what it was told to; an exception is a sensor that fails."""

    def __init__(self, *answers: float | None, source: str = "hwmon", radio: bool = True, cards: bool = True) -> None:
        self.source, self.uncertainty_ratio, self.sees_radio, self.sees_cards = source, 0.1, radio, cards
        self._answers = list(answers)

    def joules(self, moment: Moment) -> float | None:
        answer = self._answers.pop(0)
        if answer is not None and answer < 0:
            raise Unreadable(Path("sensor"), "no data")
        return answer


def used(
    seconds: float, busy_s: float = 0.0, own_s: float = 0.0, train_s: float = 0.0, serve_s: float = 0.0, sent: float = 0.0
) -> Usage:
    return Usage(START.now_s + seconds, START.busy_s + busy_s, START.own_s + own_s, train_s, serve_s, START.sent_bytes + sent)


def test_idle_and_active_are_apart_and_the_node_has_its_share_by_processor_time() -> None:
    meter = Meter([Told(30.0)], [], Scope(cores=2, machine_cores=2, idle_w=1.0), START)
    energy = meter.look(used(10, busy_s=8, own_s=4, train_s=3, serve_s=0.5))
    assert energy.joules == {"hwmon": 30.0}
    assert (energy.idle_j, energy.watts, energy.source) == (10.0, 3.0, "hwmon")
    assert energy.components == pytest.approx({"train": 7.5, "serve": 1.25, "communicate": 0.0, "agent": 1.25})


def test_the_first_source_that_has_an_answer_counts_under_its_own_name() -> None:
    battery, model = Told(None, 5.0, -1.0, source="battery"), Told(4.0, 4.0, 4.0, source="model")
    meter = Meter([battery, model], [], Scope(cores=1, machine_cores=1), START)
    for second in (1, 2, 3):
        meter.look(used(second))
    assert meter.energy.joules == {"model": 8.0, "battery": 5.0}
    assert meter.energy.total_j == 13.0
    assert meter.energy.source == "model"


def test_a_stretch_of_which_nobody_knows_anything_is_a_gap() -> None:
    meter = Meter([Told(None, -1.0, 2.0)], [], Scope(cores=1, machine_cores=1), START)
    meter.look(used(1))
    assert meter.look(used(2)).source == "none"
    energy = meter.look(used(3))
    assert (energy.gaps, energy.total_j) == (2, 2.0)


def test_cards_are_added_to_what_does_not_see_them_and_count_alone_without_it() -> None:
    card = [Told(7.0, source="nvml")]
    assert Meter([Told(3.0, source="rapl", cards=False)], card, ONE, START).look(used(1)).joules == {"rapl": 10.0}
    card = [Told(7.0, source="nvml")]
    assert Meter([Told(3.0)], card, ONE, START).look(used(1)).joules == {"hwmon": 3.0}
    card = [Told(7.0, source="nvml")]
    assert Meter([], card, ONE, START).look(used(1)).joules == {"nvml": 7.0}


def test_the_radio_is_taken_out_of_what_is_active_where_the_source_sees_it() -> None:
    def scope(cores: int = 1) -> Scope:
        return Scope(
            cores=cores, machine_cores=cores, idle_w=1.0, radio=lambda moment: 0.001 * moment.sent_bytes + 2.0 * moment.sessions
        )

    meter = Meter([Told(20.0)], [], scope(), START)
    parts = meter.look(used(5, busy_s=2, own_s=2, sent=1000)).components
    assert parts == pytest.approx({"train": 0.0, "serve": 0.0, "communicate": 3.0, "agent": 12.0})
    blind = Meter([Told(20.0, source="rapl", radio=False)], [], scope(), START)
    assert blind.look(used(5, busy_s=2, own_s=2, sent=1000)).components["communicate"] == 0.0


def test_a_session_begins_when_the_network_is_used_after_ten_seconds_of_silence() -> None:
    sessions = []
    scope = Scope(cores=1, machine_cores=1, radio=lambda moment: sessions.append(moment.sessions) or 0.0)  # type: ignore[func-returns-value]
    meter = Meter([Told(*[1.0] * 5)], [], scope, START)
    for second, sent in ((1, 10), (5, 20), (16, 20), (17, 30), (18, 40)):
        meter.look(used(second, sent=sent))
    assert sessions == [1, 0, 0, 1, 0]


def test_several_nodes_of_a_machine_share_what_is_not_idle() -> None:
    scope = Scope(cores=2, machine_cores=2, alone=False)
    first = Meter([Told(30.0)], [], scope, START).look(used(10, busy_s=8, own_s=6))
    second = Meter([Told(30.0)], [], scope, START).look(used(10, busy_s=8, own_s=2))
    assert first.total_j + second.total_j == pytest.approx(12.0)  # two fifths of the time the machine was busy
    assert first.total_j == pytest.approx(9.0)
    assert first.idle_j == 0.0


def test_a_modelled_device_of_a_shared_machine_does_only_its_node_s_work() -> None:
    seen: list[float] = []

    class Modelled(Told):
        def joules(self, moment: Moment) -> float | None:
            seen.append(moment.utilisation)
            return 10.0 * 1.0 + 5.0 * moment.utilisation * 10.0

    meter = Meter([Modelled(source="model")], [], Scope(cores=4, machine_cores=4, alone=False, idle_w=1.0), START)
    energy = meter.look(used(10, busy_s=19, own_s=20, train_s=20))
    assert seen == [0.5]
    assert energy.total_j == pytest.approx(35.0)
    assert energy.idle_j == pytest.approx(10.0)
    assert energy.components["train"] == pytest.approx(25.0)


def test_idle_power_is_learned_where_a_meter_shows_it() -> None:
    quiet, busy = [2.0] * 40, [8.0]
    meter = Meter([Told(*quiet, *busy)], [], Scope(cores=1, machine_cores=1, idle_w=5.0), START)
    for second in range(1, 41):
        meter.look(used(second))
    before = meter.energy.idle_j
    energy = meter.look(used(41, busy_s=1.0, own_s=1.0))
    assert energy.idle_j - before == pytest.approx(2.0)
    assert energy.components["agent"] == pytest.approx(6.0)


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 20.0), *[st.floats(0.0, 5.0)] * 4, st.floats(0, 1e6), st.one_of(st.none(), st.floats(-1.0, 100.0))
        ),
        min_size=1,
        max_size=20,
    ),
    st.booleans(),
    st.sampled_from(["hwmon", "rapl", "model"]),
    st.one_of(st.none(), st.floats(0.0, 10.0)),
)
def test_totals_never_fall_and_parts_are_never_more_than_the_whole(
    stretches: Sequence[tuple[float, float, float, float, float, float, float | None]],
    alone: bool,
    source: str,
    idle_w: float | None,
) -> None:
    scope = Scope(
        cores=2, machine_cores=2, alone=alone, idle_w=idle_w, radio=lambda moment: 1e-5 * moment.sent_bytes + moment.sessions
    )
    reader = Told(*[stretch[-1] for stretch in stretches], source=source, radio=source != "rapl")
    meter, now, before = Meter([reader], [], scope, START), START, Energy()
    for seconds, busy, own, train, serve, sent, _ in stretches:
        now = replace(
            now,
            now_s=now.now_s + seconds,
            busy_s=now.busy_s + busy,
            own_s=now.own_s + own,
            train_s=now.train_s + train,
            serve_s=now.serve_s + serve,
            sent_bytes=now.sent_bytes + sent,
        )
        energy = meter.look(now)
        assert energy.total_j >= before.total_j
        assert energy.idle_j >= before.idle_j
        assert all(energy.components[name] >= before.components[name] for name in COMPONENTS)
        assert energy.idle_j + sum(energy.components.values()) <= energy.total_j * (1 + 1e-9) + 1e-6
        before = energy


def test_energy_of_lives_adds_up_and_each_begins_at_nothing() -> None:
    before = Energy({"rapl": 5.0, "model": 1.0}, 2.0, dict.fromkeys(COMPONENTS, 0.5), 100.0, 3, gaps=1)
    meter = Meter([Told(4.0, source="model")], [], Scope(cores=1, machine_cores=1, idle_w=1.0), START, before)
    meter.look(used(1, sent=10))
    assert meter.life.joules == {"model": 4.0}
    assert meter.energy.joules == {"model": 5.0, "rapl": 5.0}
    assert (meter.energy.idle_j, meter.energy.carried_bytes, meter.energy.predictions, meter.energy.gaps) == (3.0, 110.0, 3, 1)


def test_nodes_that_do_all_the_work_of_a_busy_machine_take_all_its_joules() -> None:
    each = Meter([Told(*[100.0] * 10)], [], Scope(cores=1, machine_cores=10, alone=False), START)
    for second in range(1, 11):
        each.look(used(second, busy_s=10.0 * second, own_s=1.0 * second))
    assert 10 * each.life.total_j == pytest.approx(1000.0)


def test_a_quiet_node_on_a_busy_machine_does_not_learn_what_others_take_as_idle() -> None:
    meter = Meter([Told(*[100.0] * 100)], [], Scope(cores=8, machine_cores=8, alone=False), START)
    for second in range(1, 51):
        meter.look(used(second, busy_s=8.0 * second))
    for second in range(51, 101):
        meter.look(used(second, busy_s=8.0 * second, own_s=4.0 * (second - 50)))
    assert meter.life.total_j == pytest.approx(50 * 50.0)


def test_each_source_has_idle_power_of_its_own() -> None:
    package = Told(*[1.0] * 40, *[None] * 10, source="rapl", radio=False)
    battery = Told(*[None] * 40, *[6.0] * 10, source="battery")
    meter = Meter([battery, package], [], Scope(cores=1, machine_cores=1, idle_w=6.0), START)
    for second in range(1, 51):
        meter.look(used(second))
    assert meter.life.idle_j == pytest.approx(40.0 + 60.0)
    assert sum(meter.life.components.values()) == pytest.approx(0.0)


def test_a_package_is_not_idle_at_the_power_of_the_whole_board() -> None:
    meter = Meter([Told(4.0, source="rapl", radio=False)], [], Scope(cores=1, machine_cores=1, idle_w=6.0), START)
    life = meter.look(used(1, busy_s=0.5, own_s=0.5))
    assert life.idle_j == pytest.approx(2.0)
    assert life.components["agent"] == pytest.approx(2.0)
