"""The checker of histories: takes what could have been, refuses what could not, ends in time."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Sequence

import pytest

from harness.histories import (
    OK,
    Call,
    Model,
    NotLinearizable,
    Operation,
    Reply,
    Undecided,
    check,
    check_all,
)
from harness.sequential import (
    DONE,
    EXISTS,
    MISSING,
    NO_PAIRS,
    Experiments,
    ModelView,
    Param,
    Registry,
    Tag,
    VersionView,
)

LOST_SHARE = 0.04
"""Calls whose outcome nobody knows: about twelve in a history, more than a killed server leaves."""

Line = tuple[int, int | None, Call, Reply | None]
"""Invoked, returned, asked, answered; None where nobody knows."""

EMPTY = ModelView("m", "", NO_PAIRS, frozenset(), frozenset())


def operations(*lines: Line) -> list[Operation]:
    """A history of one object, each operation by a client of its own."""
    return [
        Operation("object", call, f"c{number}", invoked, returned, reply)
        for number, (invoked, returned, call, reply) in enumerate(lines)
    ]


def put(value: str) -> Call:
    """Set the tag."""
    return Call("set_tag", (value,))


def got(value: str | None) -> Reply:
    """What a reader of a tag or a param is told."""
    return Reply(OK, value)


def version(number: int, stage: str = "None") -> Reply:
    """What a call that shows a version is told."""
    return Reply(OK, VersionView(number, stage, "", NO_PAIRS, frozenset()))


GET = Call("get_tag", ())
DELETE = Call("delete_tag", ())
CREATE = Call("create_model", ("m",))
NEW_VERSION = Call("create_version", ("m",))


def to_production(number: int) -> Call:
    """Promote a version, and archive the one that was there."""
    return Call("transition", ("m", number, "Production", True))


GOOD: dict[str, tuple[Model, tuple[Line, ...]]] = {
    "nothing": (Tag(), ()),
    "readers beside a writer see either": (
        Tag(),
        ((1, 9, put("a"), DONE), (2, 3, GET, got(None)), (4, 5, GET, got("a"))),
    ),
    "concurrent writers in the order that a reader saw": (
        Tag(),
        ((1, 9, put("a"), DONE), (2, 8, put("b"), DONE), (10, 11, GET, got("a"))),
    ),
    "an unknown write that took effect much later": (
        Tag(),
        ((1, None, put("a"), None), (5, 6, GET, got(None)), (7, 8, GET, got("a"))),
    ),
    "an unknown write that never took effect": (
        Tag(),
        ((1, None, put("a"), None), (5, 6, GET, got(None)), (7, 8, DELETE, MISSING)),
    ),
    "a write that changed nothing where it stood, and something later": (
        # b is set twice at once with a: one of the two sets it again after a.
        Tag(),
        (
            (1, 2, put("b"), DONE),
            (3, 20, put("b"), DONE),
            (4, 19, put("a"), DONE),
            (21, 22, GET, got("b")),
        ),
    ),
    "one winner of a param": (
        Param(),
        (
            (1, 5, Call("log_param", ("x",)), DONE),
            (2, 6, Call("log_param", ("y",)), Reply("INVALID_PARAMETER_VALUE", "x")),
            (3, 7, Call("log_param", ("x",)), DONE),
            (8, 9, Call("get_param", ()), got("x")),
        ),
    ),
    "a name that is free again": (
        Registry(),
        (
            (1, 2, CREATE, Reply(OK, EMPTY)),
            (3, 4, NEW_VERSION, version(1)),
            (5, 6, Call("rename_model", ("m", "n")), None),
            (7, 8, CREATE, Reply(OK, EMPTY)),
            (9, 10, NEW_VERSION, version(1)),
        ),
    ),
    "two unknown writes of different things that one read needs": (
        Registry(),
        (
            (1, 2, CREATE, Reply(OK, EMPTY)),
            (3, 4, NEW_VERSION, version(1)),
            (5, 6, NEW_VERSION, version(2)),
            (7, None, Call("delete_version", ("m", 2)), None),
            (8, None, to_production(1), None),
            (
                9,
                10,
                Call("get_model", ("m",)),
                Reply(
                    OK, ModelView("m", "", NO_PAIRS, frozenset(), frozenset({("Production", 1)}))
                ),
            ),
        ),
    ),
    "an experiment whose id only a reader learns": (
        Experiments(),
        (
            (1, None, Call("create_experiment", ("e",)), None),
            (2, 3, Call("get_by_name", ("e",)), Reply(OK, ("7", "active"))),
            (4, 5, Call("delete_experiment", ("7",)), DONE),
            (6, 7, Call("create_experiment", ("e",)), EXISTS),
        ),
    ),
}

BAD: dict[str, tuple[Model, tuple[Line, ...]]] = {
    "stale read": (
        Tag(),
        ((1, 2, put("a"), DONE), (3, 4, put("b"), DONE), (5, 6, GET, got("a"))),
    ),
    "reads that go back": (
        Tag(),
        (
            (1, 20, put("a"), DONE),
            (2, 3, GET, got("a")),
            (4, 5, GET, got(None)),
        ),
    ),
    "lost update": (Tag(), ((1, 2, put("a"), DONE), (3, 4, GET, got(None)))),
    "an unknown write that took effect and was undone": (
        Tag(),
        ((1, None, put("a"), None), (5, 6, GET, got("a")), (7, 8, GET, got(None))),
    ),
    "effect before its cause": (
        Tag(),
        ((1, 2, GET, got("a")), (3, 4, put("a"), DONE)),
    ),
    "unknown effect before its cause": (
        Tag(),
        ((1, 2, GET, got("a")), (3, None, put("a"), None)),
    ),
    "two winners of a removal": (
        Tag(),
        ((1, 2, put("a"), DONE), (3, 6, DELETE, DONE), (4, 5, DELETE, DONE)),
    ),
    "two winners of a param": (
        Param(),
        (
            (1, 5, Call("log_param", ("x",)), DONE),
            (2, 6, Call("log_param", ("y",)), DONE),
        ),
    ),
    "a loser that is told of another winner": (
        Param(),
        (
            (1, 5, Call("log_param", ("x",)), DONE),
            (2, 6, Call("log_param", ("y",)), Reply("INVALID_PARAMETER_VALUE", "z")),
        ),
    ),
    "two winners of a name": (
        Registry(),
        ((1, 5, CREATE, Reply(OK, EMPTY)), (2, 6, CREATE, Reply(OK, EMPTY))),
    ),
    "resurrected name": (
        Registry(),
        (
            (1, 2, CREATE, Reply(OK, EMPTY)),
            (3, 4, Call("delete_model", ("m",)), DONE),
            (5, 6, Call("get_model", ("m",)), Reply(OK, EMPTY)),
        ),
    ),
    "a number given twice": (
        Registry(),
        (
            (1, 2, CREATE, Reply(OK, EMPTY)),
            (3, 7, NEW_VERSION, version(1)),
            (4, 6, NEW_VERSION, version(1)),
        ),
    ),
    "a number left out": (
        Registry(),
        ((1, 2, CREATE, Reply(OK, EMPTY)), (3, 7, NEW_VERSION, version(2))),
    ),
    "two in production after a promotion that archives": (
        Registry(),
        (
            (1, 2, CREATE, Reply(OK, EMPTY)),
            (3, 4, NEW_VERSION, version(1)),
            (5, 6, NEW_VERSION, version(2)),
            (7, 10, to_production(1), version(1, "Production")),
            (8, 11, to_production(2), version(2, "Production")),
            (12, 13, Call("get_version", ("m", 1)), version(1, "Production")),
            (14, 15, Call("get_version", ("m", 2)), version(2, "Production")),
        ),
    ),
    "one id for two experiments": (
        Experiments(),
        (
            (1, 2, Call("create_experiment", ("e",)), Reply(OK, "7")),
            (3, 4, Call("rename_experiment", ("7", "other")), DONE),
            (5, 6, Call("create_experiment", ("e",)), Reply(OK, "7")),
        ),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_could_have_been_is_taken(name: str) -> None:
    model, lines = GOOD[name]
    check(model, operations(*lines))


@pytest.mark.parametrize("name", BAD)
def test_what_could_not_have_been_is_refused(name: str) -> None:
    model, lines = BAD[name]
    with pytest.raises(NotLinearizable):
        check(model, operations(*lines))


def test_objects_are_checked_apart_and_the_wrong_one_is_named() -> None:
    good = [Operation("a", put("x"), "c", 1, 2, DONE), Operation("a", GET, "c", 3, 4, got("x"))]
    assert check_all({"a": Tag(), "b": Tag()}, good) == 1
    wrong = Operation("b", GET, "c", 1, 2, got("x"))
    with pytest.raises(NotLinearizable, match="object b"):
        check_all({"a": Tag(), "b": Tag()}, [*good, wrong])


def simulated(
    chance: random.Random, model: Model, propose: Callable[[], Call], clients: int, calls: int
) -> list[Operation]:
    """A linearizable history: each call takes effect at one moment between its call and return.

    Some return nothing, and of those half never took effect.
    """
    now = itertools.count(1)
    state = model.initial()
    begun: dict[int, tuple[int, Call]] = {}
    replied: dict[int, Reply] = {}
    history: list[Operation] = []
    while len(history) < calls:
        client = chance.randrange(clients)
        if client not in begun:
            begun[client] = next(now), propose()
            continue
        invoked, call = begun[client]
        lost = chance.random() < LOST_SHARE
        if client not in replied and not (lost and chance.random() < 0.5):
            replied[client], state = model.step(state, call, None)
            if not lost:
                continue
        reply = replied.pop(client, None)
        known = reply if not lost else None
        returned = next(now) if known is not None else None
        history.append(Operation("object", call, f"c{client}", invoked, returned, known))
        del begun[client]
    # Calls that took effect and have not returned belong to the history too.
    left = (Operation("object", begun[c][1], f"c{c}", begun[c][0], None, None) for c in replied)
    return [*history, *left]


def tag_calls(chance: random.Random) -> Callable[[], Call]:
    """Writes of values of their own, removals and reads."""
    values = itertools.count()

    def propose() -> Call:
        return chance.choice((put(f"v{next(values)}"), DELETE, GET, GET))

    return propose


def registry_calls(chance: random.Random) -> Callable[[], Call]:
    """Calls on two names of models."""

    def propose() -> Call:
        name, other = chance.sample(("m", "n"), 2)
        number = chance.randint(1, 4)
        return chance.choice(
            (
                Call("create_model", (name,)),
                Call("create_version", (name,)),
                Call("create_version", (name,)),
                Call("transition", (name, number, "Staging", True)),
                Call("set_alias", (name, "x", number)),
                Call("delete_alias", (name, "x")),
                Call("rename_model", (name, other)),
                Call("delete_model", (name,)),
                Call("get_model", (name,)),
                Call("get_model", (name,)),
                Call("get_alias", (name, "x")),
            )
        )

    return propose


CALLS: Sequence[tuple[Callable[[], Model], Callable[[random.Random], Callable[[], Call]]]] = (
    (Tag, tag_calls),
    (Registry, registry_calls),
)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("make", "calls"), CALLS)
def test_simulated_histories_are_taken(
    seed: int, make: Callable[[], Model], calls: Callable[[random.Random], Callable[[], Call]]
) -> None:
    chance = random.Random(seed)
    check(make(), simulated(chance, make(), calls(chance), clients=8, calls=300))


@pytest.mark.parametrize("seed", range(12))
def test_one_wrong_reply_in_a_simulated_history_is_found(seed: int) -> None:
    chance = random.Random(seed)
    history = simulated(chance, Tag(), tag_calls(chance), clients=4, calls=200)
    reads = [i for i, o in enumerate(history) if o.call == GET and o.reply is not None]
    place = chance.choice(reads)
    wrong = history[place]
    history[place] = Operation(
        wrong.subject, GET, wrong.client, wrong.invoked_ns, wrong.returned_ns, got("never set")
    )
    with pytest.raises(NotLinearizable):
        check(Tag(), history)


def test_a_search_without_end_is_told_in_time() -> None:
    # Eighteen writes at once and a value that none of them wrote: every order would be tried.
    history = [Operation("object", put(f"v{n}"), f"c{n}", n, 100 + n, DONE) for n in range(18)]
    history.append(Operation("object", GET, "r", 200, 201, got("never set")))
    began = time.monotonic()
    with pytest.raises(Undecided, match="configurations"):
        check(Tag(), history, seconds_max=0.3)
    assert time.monotonic() - began < 3.0
