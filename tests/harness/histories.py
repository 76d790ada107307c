"""Histories of concurrent calls, and whether they could have happened one after the other.

A history is linearizable when there is an order of its operations that a sequential model allows,
and that keeps real time: what had returned before another was invoked comes before it. The search
is that of Wing and Gong with Lowe's memory of what was tried: depth first over what may come next,
never twice from one (operations done, state).

An operation without a reply (timed out, reset, 503) may take effect at any time after its call, or
never. Objects that do not share state are checked apart (P-compositionality: Herlihy and Wing), so
a history names the object of each operation.

The search is bounded: what cannot be decided within the limit raises Undecided, which is no pass.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

OK = "OK"
CHECK_S_MAX = 30.0
"""Seconds that one object's history may take to check."""
CLOCK_EVERY = 256
"""Configurations between two looks at the clock."""
SHOWN_OPERATIONS = 12
SHOWN_OBJECTS = 3


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked: an operation's name and its arguments."""

    name: str
    args: tuple[Hashable, ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.args))})"


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered: OK or an error code, and what the answer told."""

    code: str
    value: Hashable = None

    def __str__(self) -> str:
        return self.code if self.value is None else f"{self.code} {self.value}"


@dataclass(frozen=True, slots=True)
class Operation:
    """One call on one object. Times are of one monotonic clock.

    reply, returned_ns: None when nobody knows whether it took effect.
    """

    subject: str
    call: Call
    client: str
    invoked_ns: int
    returned_ns: int | None
    reply: Reply | None

    def __str__(self) -> str:
        until = "?" if self.returned_ns is None else f"{self.returned_ns / 1e6:.3f}"
        answer = "unknown" if self.reply is None else str(self.reply)
        return f"[{self.invoked_ns / 1e6:.3f}..{until} ms] {self.client} {self.call} -> {answer}"


class Model(Protocol):
    """What an object does when its operations come one after the other.

    A call that is refused changes nothing, in any state.
    """

    @property
    def reads(self) -> Collection[str]:
        """Names of the calls that change nothing, whatever they are answered."""

    def initial(self) -> Hashable:
        """The state at the beginning."""

    def step(self, state: Hashable, call: Call, seen: Reply | None) -> tuple[Reply, Hashable]:
        """The reply that a call must get, and the state behind it.

        seen: the reply that was given, to take from it what the server alone chooses (a new id);
        None when it is unknown.
        """


class NotLinearizable(AssertionError):
    """No order of the operations explains the replies."""


class Undecided(AssertionError):
    """The search met its limit. Neither a pass nor a proof: shorten the history and look again."""


def by_subject(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """The operations of each object."""
    apart: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        apart[operation.subject].append(operation)
    return dict(apart)


def check_all(models: Mapping[str, Model], operations: Iterable[Operation]) -> int:
    """Check each object's history against its model; gives the count of objects.

    Raises NotLinearizable or Undecided, with the objects and where each search got stuck.
    """
    apart = by_subject(operations)
    found: list[NotLinearizable | Undecided] = []
    for subject, history in sorted(apart.items()):
        try:
            check(models[subject], history)
        except (NotLinearizable, Undecided) as wrong:
            found.append(wrong)
    if found:
        stories = "\n\n".join(str(wrong) for wrong in found[:SHOWN_OBJECTS])
        raise type(found[0])(f"{len(found)} of {len(apart)} objects:\n{stories}")
    return len(apart)


def check(model: Model, operations: Sequence[Operation], seconds_max: float = CHECK_S_MAX) -> None:
    """Raise NotLinearizable unless one object's history fits its model; Undecided at the limit."""
    _Search(model, operations, time.monotonic() + seconds_max).run()


@dataclass(frozen=True, slots=True)
class _Place:
    # Where a search is: bits of the known operations that are done and of the unknown ones that
    # took effect, and the state behind them. bet: the unknown operation that was the last step and
    # the state before it, while it still has to show that something depends on it.
    done: int
    used: int
    state: Hashable
    bet: tuple[int, Hashable] | None = None


class _Search:
    """One search. Operations stand in the order of their invocation."""

    def __init__(self, model: Model, operations: Sequence[Operation], deadline: float) -> None:
        ordered = sorted(operations, key=lambda o: o.invoked_ns)
        self._model = model
        self._known = [o for o in ordered if o.reply is not None]
        self._unknown = [o for o in ordered if o.reply is None and o.call.name not in model.reads]
        self._all = (1 << len(self._known)) - 1
        self._deadline = deadline
        self._tried: dict[Hashable, list[int]] = defaultdict(list)
        self._furthest = _Place(0, 0, model.initial())

    def run(self) -> None:
        """Depth first, with a stack of our own: histories outgrow that of Python."""
        stack = [iter((_Place(0, 0, self._model.initial()),))]
        visited = 0
        while stack:
            place = next(stack[-1], None)
            if place is None:
                stack.pop()
                continue
            place = self._past_what_changes_nothing(place)
            if place.done == self._all:
                return
            if self._was_tried(place):
                continue
            self._note(place)
            visited += 1
            if visited % CLOCK_EVERY == 0 and time.monotonic() > self._deadline:
                raise Undecided(f"undecided after {visited} configurations\n{self._story()}")
            stack.append(self._next(place))
        raise NotLinearizable(f"no order explains this\n{self._story()}")

    def _was_tried(self, place: _Place) -> bool:
        # What failed fails too with fewer unknown operations left to explain things by.
        tried = self._tried[place.done, place.state, place.bet]
        if any(used & place.used == used for used in tried):
            return True
        tried.append(place.used)
        return False

    def _past_what_changes_nothing(self, place: _Place) -> _Place:
        # A read or a refusal that may come now can always come now: it changes nothing wherever it
        # stands, so any order that has it later is as good with it here. No branch is needed. (Not
        # so a write that happens to change nothing now: later it might.)
        done, moved = place.done, True
        while moved:
            moved = False
            for index in self._eligible(done)[0]:
                operation = self._known[index]
                if not self._is_idle(operation):
                    continue
                reply, state = self._model.step(place.state, operation.call, operation.reply)
                if state == place.state and reply == operation.reply:
                    done |= 1 << index
                    moved = True
        # It did not fit before the last step (it would have been taken then), so the bet is won.
        return _Place(done, place.used, place.state, place.bet if done == place.done else None)

    def _is_idle(self, operation: Operation) -> bool:
        assert operation.reply is not None, "an operation that is known has a reply"
        return operation.reply.code != OK or operation.call.name in self._model.reads

    def _eligible(self, done: int) -> tuple[list[int], int]:
        # Those that were invoked before the first return of what is not done, and that return.
        index = (~done & (done + 1)).bit_length() - 1
        eligible: list[int] = []
        first_return_ns: float = math.inf
        while index < len(self._known):
            operation = self._known[index]
            if operation.invoked_ns > first_return_ns:
                break
            if not done >> index & 1:
                eligible.append(index)
                assert operation.returned_ns is not None, "a reply has a time"
                first_return_ns = min(first_return_ns, operation.returned_ns)
            index += 1
        return eligible, int(first_return_ns) if eligible else 0

    def _next(self, place: _Place) -> Iterator[_Place]:
        eligible, until_ns = self._eligible(place.done)
        # What returned first most likely happened first; what nobody knows of is tried last.
        for index in sorted(eligible, key=lambda i: self._known[i].returned_ns or 0):
            operation = self._known[index]
            reply, state = self._model.step(place.state, operation.call, operation.reply)
            if reply == operation.reply and self._needs_bet(place, operation, state):
                yield _Place(place.done | 1 << index, place.used, state)
        for index, operation in enumerate(self._unknown):
            if operation.invoked_ns > until_ns:
                return
            if place.used >> index & 1:
                continue
            _, state = self._model.step(place.state, operation.call, None)
            if state != place.state and self._needs_bet(place, operation, state, index):
                yield _Place(place.done, place.used | 1 << index, state, (index, place.state))

    def _needs_bet(
        self, place: _Place, operation: Operation, after: Hashable, unknown: int | None = None
    ) -> bool:
        # An unknown operation need not come before one that goes the same way without it, or that
        # it can as well come after: an order that has it later, or not at all, is found too. Of two
        # unknown ones that can come either way (a read may need both), the earlier one comes first.
        if place.bet is None:
            return True
        index, before = place.bet
        reply, without = self._model.step(before, operation.call, operation.reply)
        if operation.reply is not None and reply != operation.reply:
            return True
        if without == after:
            return False
        _, swapped = self._model.step(without, self._unknown[index].call, None)
        return swapped != after or (unknown is not None and unknown > index)

    def _note(self, place: _Place) -> None:
        if place.done.bit_count() >= self._furthest.done.bit_count():
            self._furthest = place

    def _story(self) -> str:
        # Where the search got furthest: the state there, and what did not fit it.
        place = self._furthest
        eligible, _ = self._eligible(place.done)
        lines = [
            f"{place.done.bit_count()} of {len(self._known)} known operations could be ordered "
            f"({len(self._unknown)} unknown ones, {place.used.bit_count()} of them used); then",
            f"  state: {place.state}",
        ]
        for index in eligible[:SHOWN_OPERATIONS]:
            operation = self._known[index]
            reply, _ = self._model.step(place.state, operation.call, operation.reply)
            lines.append(f"  next?  {operation}   (the model says {reply})")
        recent = [o for i, o in enumerate(self._known) if place.done >> i & 1][-SHOWN_OPERATIONS:]
        lines += [f"  before: {operation}" for operation in recent]
        lines += [f"  maybe:  {operation}" for operation in self._unknown[-SHOWN_OPERATIONS:]]
        return "\n".join([f"object {self._known[0].subject}: {lines[0]}", *lines[1:]])
