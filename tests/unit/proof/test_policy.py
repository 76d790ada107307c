"""Policies of witnesses, as C2SP tlog-policy writes them."""

from __future__ import annotations

from itertools import combinations

import pytest

from muniment_services.proof import policy
from muniment_services.proof.note import Kind, VerifierKey
from muniment_services.proof.policy import PolicyInvalid


def vkey(name: str, kind: Kind = Kind.COSIGNATURE) -> str:
    return VerifierKey(f"w.example/{name}", kind, name.encode().ljust(32, b".")).vkey


NAMES = ("X1", "X2", "X3", "Y1", "Y2", "Y3")
LINES = "".join(f"witness {name} {vkey(name)} https://{name}.example/\n" for name in NAMES)
EXAMPLE = f"""\
# The example of the specification.
log {vkey("log", Kind.ED25519)}

{LINES}
\tgroup X-witnesses 2 X1 X2 X3
group Y-witnesses  any Y1 Y2\tY3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def test_the_example_of_the_specification() -> None:
    found = policy.parse(EXAMPLE)
    assert tuple(found.witnesses) == NAMES
    assert found.witnesses["X1"].url == "https://X1.example"
    for count in range(len(NAMES) + 1):
        for cosigned in combinations(NAMES, count):
            enough = sum(n[0] == "X" for n in cosigned) >= 2 and any(n[0] == "Y" for n in cosigned)
            assert found.met(cosigned) == enough, cosigned


def test_the_smallest_policies() -> None:
    assert policy.parse("quorum none").met(())
    one = policy.parse(f"witness a {vkey('a')} http://a\nquorum a")
    assert (one.met(("a",)), one.met(())) == (True, False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "one line `quorum`"),
        ("quorum a", "line 1: there is no a above it"),
        ("quorum none\nquorum none", "line 2"),
        (f"{LINES}group g 0 X1\nquorum g", "1 to 1 of its members"),
        (f"{LINES}group g 3 X1 X2\nquorum g", "1 to 2 of its members"),
        (f"{LINES}group g any\nquorum g", "it is none of"),
        (f"{LINES}group g any X1 X1\nquorum g", "in one group once"),
        (f"{LINES}group g any X1\ngroup h any X1\nquorum h", "in one group once"),
        (f"{LINES}group g any h\ngroup h any X1\nquorum h", "members are above it"),
        (f"{LINES}group X1 any X2\nquorum X1", "the name X1 is taken"),
        (f"{LINES}witness X1 {vkey('z')} http://z\nquorum X1", "the name X1 is taken"),
        (f"{LINES}witness Z {vkey('X1')} http://z\nquorum Z", "has the key of another"),
        (f"witness none {vkey('a')} http://a\nquorum none", "the name none is taken"),
        (f"witness a {vkey('a', Kind.ED25519)} http://a\nquorum a", "not for cosignatures"),
        ("witness a w.example/a+00000000+BAAA http://a\nquorum a", "not a verifier key"),
        (f"witness a {vkey('a')} a.example\nquorum a", "no URL that begins"),
        (f"witness a {vkey('a')}\nquorum a", "witness NAME VKEY URL"),
    ],
)
def test_what_is_no_policy_is_refused_with_its_line(text: str, says: str) -> None:
    with pytest.raises(PolicyInvalid, match=says):
        policy.parse(text)
