"""A track with something that goes wrong in it, played to the day on which all must be well again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import yaml

from local.interpreter import TaskCall, TaskFailed
from sweep import tracks
from sweep.disturbances import Disturbance
from sweep.faults import Fault, Injection
from sweep.monitors import Monitors
from sweep.tracks import TRACKS, Track
from sweep.world import ROOT, WAKE_AT, World

HALF_AN_HOUR = timedelta(minutes=30)
Wrong = Fault | Disturbance
BY_NAME = {track.name: track for track in TRACKS}


@dataclass(frozen=True)
class Where:
    """A task state of a state machine; the machine by its name without the stack's."""

    machine: str
    state: str

    def __str__(self) -> str:
        return f"{self.machine}: {self.state}"


@dataclass(frozen=True)
class Scenario:
    """What goes wrong on a track, and where: at the first try of each state. A seed shuffles who goes first."""

    track: str
    wrongs: tuple[tuple[Where, Wrong], ...] = ()
    seed: int = 0

    def __str__(self) -> str:
        parts = [self.track, *(f"{where} / {wrong}" for where, wrong in self.wrongs)]
        return " | ".join([*parts, *([f"seed {self.seed}"] if self.seed else [])])


@dataclass
class Played:
    """How a scenario went. `struck`: whether all that was to go wrong did."""

    name: str
    broken: list[str] = field(default_factory=list)
    struck: bool = True
    ends: list[str] = field(default_factory=list)
    visited: list[tuple[str, str, str]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    """Which state followed which: "machine: state -> state"."""
    lines: list[tuple[str, int]] = field(default_factory=list)
    """Lines of the guards that were run, each with its guard."""


def task_states() -> Iterator[tuple[str, str]]:
    """Every task state of every state machine, those inside a Map too: machine and state."""
    for path in (ROOT / "statemachine").glob("*.asl.yaml"):
        definitions = [yaml.safe_load(path.read_text())]
        while definitions:
            for state, members in definitions.pop()["States"].items():
                if members["Type"] == "Task":
                    yield path.name.removesuffix(".asl.yaml").replace("_", "-"), state
                elif members["Type"] == "Map":
                    definitions.append(members["ItemProcessor"])


class Player:
    """Plays one track in one world, which is spent afterwards."""

    def __init__(self, world: World, track: Track) -> None:
        self.world, self.track = world, track
        self.monitors = Monitors(world)
        self.visited: dict[Where, str] = {}
        """Task states that were tried, with their resource."""
        self.at_first_try: Callable[[Where, TaskCall], Iterable[tuple[Where, Wrong]]] = lambda _, __: ()
        """Asked at the first try of each task state for what goes wrong from now on."""
        self.missing: list[tuple[Where, Wrong]] = []
        self._begun = self._struck = False
        self._before = set(world.engine.runs)
        self._injections: list[tuple[Where, Injection]] = []
        self._tomorrow: list[Callable[[], Any]] = []
        world.tomorrow = self._tomorrow.append
        world.engine.attempt = self._attempt
        world.engine.on_end = self.monitors.ended
        world.lines.clear()

    def prepare(self) -> None:
        """Up to the moment at which the track begins."""
        tracks.until_begin(self.world, self.track)

    def play(self) -> None:
        """To the day on which all must be well."""
        world = self.world
        self._begun = True
        arn = self.track.begin(world)
        world.settle([arn])
        path = world.path(arn)
        if not self.disturbed and path[-1] != self.track.ends:
            self.monitors.break_("L4", f"{self.track.name!r} ends {path[-1]!r}, not {self.track.ends!r}")
        if not self.disturbed and self.track.through and self.track.through not in path:
            self.monitors.break_("L4", f"{self.track.name!r} does not go through {self.track.through!r}")
        tracks.until_whole(world, self.track, self.monitors.rest, lambda: not self.monitors.unwell())
        self._on_the_next_day()
        if not self.disturbed:
            self.monitors.once()
        self.monitors.rest("in the end")
        self.monitors.whole("in the end")
        self.monitors.afterwards()

    def _on_the_next_day(self) -> None:
        """What belongs to yesterday happens once more, when nobody waits for it."""
        world = self.world
        for again in self._tomorrow:
            world.until(world.now + HALF_AN_HOUR)
            again()
        if self._tomorrow:
            world.until(world.now + 4 * HALF_AN_HOUR)
            world.fire("watchdog")
            world.settle()

    def tomorrow(self, task: TaskCall, carry_out: Callable[[], Any]) -> None:
        """Delivers a task once more on the next day: its execution is over, and its answer goes nowhere."""

        def again() -> None:
            self.world.engine.current.append(task)
            try:
                carry_out()
            except TaskFailed:
                return  # as it should: it has no business there any more
            finally:
                self.world.engine.current.pop()

        self._tomorrow.append(again)

    def _attempt(self, task: TaskCall, carry_out: Callable[[], Any]) -> Any:
        if not self._begun:
            return carry_out()
        where = Where(self.world.engine.machine_of(task.execution_arn), task.state)
        if where not in self.visited:
            self.visited[where] = task.resource
            self.missing.extend(self.at_first_try(where, task))
        for at, injection in self._injections:
            if at == where and not injection.done:
                return injection.attempt(task, carry_out)
        for entry in self.missing:
            at, wrong = entry
            if at == where:
                self.missing.remove(entry)
                self._struck = True
                if isinstance(wrong, Fault):
                    late = partial(self.tomorrow, task)
                    self._injections.append((where, Injection(wrong, late)))
                    return self._injections[-1][1].attempt(task, carry_out)
                return wrong.strike(self.world, task, carry_out)
        return carry_out()

    @property
    def disturbed(self) -> bool:
        """Whether anything was meant to go wrong besides what the track is about."""
        return bool(self.missing or self._injections or self._struck)

    @property
    def struck(self) -> bool:
        return not self.missing and all(injection.done for _, injection in self._injections)

    def played(self, name: str) -> Played:
        """The report."""
        ends = [path[-1] for arn in self.world.engine.runs if (path := self.world.path(arn))]
        visited = [(where.machine, where.state, resource) for where, resource in self.visited.items()]
        steps = {
            f"{self.world.engine.machine_of(arn)}: {state} -> {following}"
            for arn in set(self.world.engine.runs) - self._before
            for state, following in pairwise(self.world.path(arn))
        }
        lines = sorted(self.world.lines.run)
        return Played(name, self.monitors.broken, self.struck, ends, visited, sorted(steps), lines)


def play(world: World, scenario: Scenario) -> Played:
    """Plays one scenario in a fresh world."""
    player = Player(world, BY_NAME[scenario.track])
    if scenario.seed:
        shuffle = random.Random(scenario.seed)
        world.engine.pace = lambda: shuffle.choice((0.0, 0.5, 2.0, 7.0))
    player.prepare()
    player.missing.extend(scenario.wrongs)
    player.play()
    return player.played(str(scenario))


__all__ = ["BY_NAME", "WAKE_AT", "Played", "Player", "Scenario", "Where", "Wrong", "play", "task_states"]
