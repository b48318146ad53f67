"""Hosts that fight for one replica over a bad network, in time that only exists here.

The protocol is the real one: ``store/lease.py`` and ``replicate/fencing.py`` decide; what is
imagined is the store, the network, the clocks and the processes. One seed is one history,
the same every time.

Hosts are stopped and go on (SIGSTOP), are killed, lose their disks, leave in order; their
clocks run fast or slow, and stand still while the host does, if that is asked for. Requests
are delayed for longer than any TTL, get lost, or arrive twice; answers get lost; the store
answers 409 when it feels like it.

What is checked, at every step: files join, and none is ever replaced; whatever was
acknowledged is in the newest state from then on; epochs never fall, and no two holders have
the same one. Where clocks are worth something, no two hosts believe that they may publish. At
the end the faults stop, and somebody must acknowledge again.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from sqlitereplica.replicate.fencing import (
    Entrance,
    Predecessor,
    Tenure,
    entrance,
    forgives,
)
from sqlitereplica.store.lease import (
    Identity,
    Look,
    Record,
    Rest,
    Seen,
    Stage,
    State,
    decide,
    on_answered,
    on_no_answer,
    on_read,
    on_refused,
    on_sent,
    publish_until,
    record_for,
    release,
)

__all__ = ["Conditions", "World"]

TTL = 10.0
WALL = datetime(2026, 1, 1, tzinfo=UTC)
Commits: TypeAlias = frozenset[int]
Task: TypeAlias = Generator[Any, Any, None]


class RefusedError(Exception):
    """The condition of a write does not hold."""


class NoAnswerError(Exception):
    """Whatever happened, nobody says."""


@dataclass(frozen=True)
class Conditions:
    """How bad it is: probabilities of each request, and what clocks do."""

    hosts: int = 3
    seconds: float = 200.0
    lose_request: float = 0.03
    lose_answer: float = 0.05
    duplicate: float = 0.03
    conflict: float = 0.03
    """Of 409."""
    delay: float = 0.08
    """Of a delay of up to three TTLs."""
    trouble_every: float = 15.0
    """Seconds between things that happen to a host, on average."""
    skew: float = 0.1
    """How much faster or slower than time a clock may run."""
    frozen_clocks: bool = False
    """Whether clocks stand still while their host does."""


@dataclass(frozen=True)
class File:
    """A level-0 file: who made it, of what, and what the database is after it."""

    node: int
    nonce: int
    before: Commits
    after: Commits


@dataclass
class Store:
    """``lock.json`` and the files, with real conditions."""

    lock: tuple[str, bytes] | None = None
    files: list[File] = field(default_factory=list)
    written: int = 0
    epochs: dict[int, int] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)

    def read(self) -> Seen:
        """The lease."""
        if self.lock is None:
            return Seen(None, None)
        return Seen(Record.from_bytes(self.lock[1]), self.lock[0])

    def write(self, record: Record, expect: str | None) -> str:
        """Replace the lease."""
        old = self.read()
        if old.tag != expect:
            raise RefusedError
        assert record.epoch >= (old.record.epoch if old.record else 0), "epoch fell"
        holder = self.epochs.setdefault(record.epoch, record.node)
        assert holder == record.node, "two holders of one epoch"
        self.written += 1
        self.lock = str(self.written), record.to_bytes()
        return self.lock[0]

    def newest(self) -> tuple[int, File | None]:
        """The TXID and the file of the newest state."""
        return len(self.files), self.files[-1] if self.files else None

    def put(self, txid: int, file: File) -> None:
        """Create a file; the same bytes again are the same put."""
        if txid <= len(self.files):
            if self.files[txid - 1] != file:
                raise RefusedError
            return
        assert txid == len(self.files) + 1, "a gap"
        before = self.files[-1].after if self.files else frozenset()
        assert file.before == before, "files do not join"
        assert self.acknowledged <= file.after, "acknowledged commits are undone"
        self.files.append(file)


class World:
    """One history, from a seed."""

    def __init__(self, seed: int, conditions: Conditions) -> None:
        self.rng = random.Random(seed)
        self.conditions = conditions
        self.time = 0.0
        self.store = Store()
        self.calm = False
        self.commits = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self.hosts = [Host(self, n + 1) for n in range(conditions.hosts)]

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Have something happen later."""
        self._order += 1
        heapq.heappush(self._events, (self.time + delay, self._order, action))

    def chance(self, probability: float) -> bool:
        """Whether something bad happens."""
        return not self.calm and self.rng.random() < probability

    def run(self) -> None:
        """Live through it, then let the faults stop and see that it goes on."""
        for host in self.hosts:
            self.at(self.rng.uniform(0, TTL), host.start)
            self.at(self._next_trouble(), host.trouble)
        self._until(self.conditions.seconds)
        self.calm = True
        for host in self.hosts:
            host.recover()
        self._until(self.time + 4 * TTL)  # for what is still on its way
        before = len(self.store.acknowledged)
        self._until(self.time + 6 * TTL)
        assert len(self.store.acknowledged) > before, "nobody acknowledges any more"

    def _until(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            self.time, _, action = heapq.heappop(self._events)
            action()
        self.time = end

    def _next_trouble(self) -> float:
        return self.rng.expovariate(1 / self.conditions.trouble_every)

    def send(
        self,
        action: Callable[[], Any],
        done: Callable[[Any, BaseException | None], None],
    ) -> None:
        """One request; ``done`` is called once, with an answer or the lack of one."""
        answered = False

        def answer(value: Any, error: BaseException | None) -> None:
            nonlocal answered
            if not answered:
                answered = True
                done(value, error)

        def arrive() -> None:
            value, error = None, None
            if self.chance(self.conditions.conflict):
                error = NoAnswerError()
            else:
                try:
                    value = action()
                except RefusedError as refused:
                    error = refused
            if not self.chance(self.conditions.lose_answer):
                self.at(self._latency(), lambda: answer(value, error))

        if not self.chance(self.conditions.lose_request):
            self.at(self._latency(), arrive)
            if self.chance(self.conditions.duplicate):
                self.at(self._latency(), arrive)
        self.at(TTL / 4, lambda: answer(None, NoAnswerError()))

    def _latency(self) -> float:
        if self.chance(self.conditions.delay):
            return self.rng.uniform(0, 3 * TTL)
        return self.rng.uniform(0.001, 0.1)


class Host:
    """One host: a disk, a clock, and a process that comes and goes."""

    def __init__(self, world: World, node: int) -> None:
        self.world, self.node = world, node
        self.disk: Commits = frozenset()
        skew = world.conditions.skew
        self._rate = world.rng.uniform(1 - skew, 1 + skew)
        self._offset = world.rng.uniform(0, 1e6)
        self._stopped_until = 0.0
        self._frozen = 0.0
        self._life = 0
        self.state: State | None = None

    # -- time and processes --------------------------------------------------------------

    def clock(self) -> float:
        """Its own monotonic clock."""
        return (self.world.time - self._frozen) * self._rate + self._offset

    def start(self) -> None:
        """A new process, on the disk that is there."""
        self._life += 1
        me = Identity(f"host-{self.node}", self._life, self.node, TTL)
        self.state = State(me=me)
        self.live = False
        self.leaving = False
        self._spawn(self._lease(), self._life)
        self._spawn(self._replicate(), self._life)

    def kill(self) -> None:
        """SIGKILL."""
        self._life += 1
        self.state = None

    def recover(self) -> None:
        """Run from now on."""
        self._stopped_until = self.world.time
        if self.state is None or self.state.stage in (Stage.LOST, Stage.RELEASED):
            self.start()

    def trouble(self) -> None:
        """Something happens to it, and again later."""
        world, rng = self.world, self.world.rng
        if world.calm:
            return
        kind = rng.choice(["stop", "stop", "kill", "disk", "leave"])
        if kind == "stop":
            length = rng.uniform(0, 4 * TTL)
            if self._stopped_until <= world.time:
                self._stopped_until = world.time + length
                if world.conditions.frozen_clocks and rng.random() < 0.5:
                    self._freeze(length)
        elif kind == "leave" and self.state is not None:
            self.leaving = True
        elif kind in ("kill", "disk"):
            self.kill()
            if kind == "disk":
                self.disk = frozenset()
                self.node += 100  # a new metadata folder
            world.at(rng.uniform(0, 2 * TTL), self._start_if_dead)
        world.at(world._next_trouble(), self.trouble)

    def _freeze(self, length: float) -> None:
        began = self.world.time

        def thaw() -> None:
            self._frozen += self.world.time - began

        self.world.at(length, thaw)

    def _start_if_dead(self) -> None:
        if self.state is None:
            self.start()

    def _die(self) -> None:
        """The process ends by itself and is started again."""
        self.kill()
        self.world.at(self.world.rng.uniform(0, TTL), self._start_if_dead)

    def _spawn(self, task: Task, life: int) -> None:
        def resume(value: Any = None, error: BaseException | None = None) -> None:
            if life != self._life:
                return
            if self._stopped_until > self.world.time:
                wait = self._stopped_until - self.world.time
                self.world.at(wait, lambda: resume(value, error))
                return
            try:
                wanted = task.throw(error) if error is not None else task.send(value)
            except StopIteration:
                return
            if isinstance(wanted, float):
                self.world.at(wanted / self._rate, resume)
            else:
                self.world.send(wanted, resume)

        resume()

    # -- what its process does -----------------------------------------------------------

    def _lease(self) -> Task:
        """As ``replicate/leasing.py`` does."""
        store, rng = self.world.store, self.world.rng
        while (state := self.state) is not None:
            action = decide(state, self.clock())
            match action:
                case Rest(until):
                    yield min(max(0.0, until - self.clock()), TTL / 4) + 0.001
                case Look():
                    try:
                        seen = yield store.read
                        self.state = on_read(self.state, seen, self.clock())
                    except NoAnswerError:
                        self.state = on_no_answer(
                            self.state, self.clock(), rng.random()
                        )
                case write:
                    nonce = str(rng.getrandbits(60))
                    record = record_for(state, write, nonce, WALL)
                    self.state = on_sent(state, write, record, self.clock())
                    try:
                        tag = yield lambda r=record, e=write.expect: store.write(r, e)
                        self.state = on_answered(self.state, record, tag, self.clock())
                    except RefusedError:
                        self.state = on_refused(self.state)
                    except NoAnswerError:
                        self.state = on_no_answer(
                            self.state, self.clock(), rng.random()
                        )

    def may_publish(self) -> bool:
        """Whether it believes that it holds the lease."""
        return self.state is not None and self.clock() < publish_until(self.state)

    def _checks(self) -> bool:
        """``may_publish``; and where clocks are worth something, nobody else may."""
        if not self.may_publish():
            return False
        if not self.world.conditions.frozen_clocks:
            others = [h.node for h in self.world.hosts if h.may_publish()]
            assert others == [self.node], "two believe that they hold the lease"
        return True

    def _tenure(self) -> Tenure:
        assert self.state is not None
        before = self.state.before
        if before is None:
            return Tenure(self.state.epoch, Predecessor.NOBODY)
        own = self.state.me.was(before)
        return Tenure(self.state.epoch, Predecessor.SELF if own else Predecessor.OTHER)

    def _replicate(self) -> Task:
        """As ``replicate/worker.py`` does, behind a standby."""
        while self.state is not None and self.state.stage is not Stage.HELD:
            if self.state.stage is Stage.RELEASED:
                return self._die()
            yield 0.5
        tenure, settled = self._tenure(), False
        while True:  # enter
            txid, held, base = yield from self._look()
            writer = held.node if held else 0
            how = entrance(
                tenure, settled=settled, txid=txid, writer=writer, node=self.node
            )
            if how is Entrance.COMPARE and self.disk != base:
                self.disk = base  # a standby: the application has not begun
                continue
            if how is Entrance.CONTINUE and self.disk == base:
                break
            if (yield from self._put(txid + 1, base)):
                txid, base, settled = txid + 1, self.disk, True
                break
            if not forgives(tenure, settled=settled):
                return self._die()
        self.live = True
        self._spawn(self._application(), self._life)
        while not (self.leaving and self.disk == base):
            if self.disk == base:
                yield 0.7
                continue
            if not (yield from self._put(txid + 1, base)):
                return self._die()
            txid, base = txid + 1, self.shipped
        yield from self._leave()
        return None

    def _look(self) -> Generator[Any, Any, tuple[int, File | None, Commits]]:
        while True:
            try:
                txid, held = yield self.world.store.newest
            except NoAnswerError:
                yield 0.5
                continue
            return txid, held, held.after if held else frozenset()

    def _put(self, txid: int, base: Commits) -> Generator[Any, Any, bool]:
        """Put what the disk is now; False when the name is another's."""
        self.shipped = self.disk
        file = File(self.node, self.world.rng.getrandbits(60), base, self.shipped)
        while True:
            assert self.state is not None
            if self.state.stage is Stage.LOST:
                return False
            if not self._checks():
                yield 0.3
                continue
            yield self.world.rng.uniform(0, 0.5)  # it may be stopped just here
            try:
                yield lambda: self.world.store.put(txid, file)
            except RefusedError:
                return False
            except NoAnswerError:
                yield 0.3
                continue
            if self._checks():
                self._acknowledge()
                return True

    def _acknowledge(self) -> None:
        store = self.world.store
        newest = store.files[-1].after
        assert self.shipped <= newest, "acknowledged what is not there"
        store.acknowledged |= self.shipped

    def _application(self) -> Task:
        while not self.leaving:
            yield self.world.rng.uniform(0.5, 6.0)
            self.world.commits += 1
            self.disk |= {self.world.commits}

    def _leave(self) -> Task:
        """Stop in order: release, and be gone for a while."""
        assert self.state is not None
        self.state = release(self.state)
        while self.state.stage is Stage.HELD:
            yield 0.2
        self._die()
