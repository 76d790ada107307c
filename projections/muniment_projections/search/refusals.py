"""What to say about a filter that the grammar does not take.

MLflow's server looks for comparisons anywhere in the text and complains of the pieces between them.
Clients parse those messages, so the same pieces are found here: operands, comparisons, the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from muniment_projections.search.errors import SearchError
from muniment_projections.search.tree import Clause, Constant

_OPERANDS = frozenset({"NAME", "STRING", "NUMBER", "NULL", "GROUP", "OPERATION"})
_ARITHMETIC = frozenset("+-*/%|")
_FORMS: Final = {"NAME": "name", "STRING": "string", "NUMBER": "number", "NULL": "null"}

LIST_ILL_FORMED = (
    "While parsing a list in the query,"
    " expected a non-empty list of string values, but got ill-formed list."
)


@dataclass(frozen=True, slots=True)
class Word:
    """A piece of a filter: its terminal in the grammar (or GROUP, OPERATION), text and place."""

    form: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """Where the next word may begin."""
        return self.start + len(self.text)


def salvage(
    text: str, words: Sequence[Word], refused: Callable[[str, Sequence[str]], str]
) -> tuple[Clause, ...]:
    """The comparisons of a filter that the grammar refused; mostly raises SearchError.

    Clauses come back only if all pieces are comparisons, some with a value (a call, a sum) of the
    form "other", which every entity refuses in its own words.
    """
    _refuse_several(text, words)
    pieces = _operations(text, _groups(text, words))
    clauses: list[Clause | None] = []
    invalid: list[str] = []
    at = 0
    while at < len(pieces):
        clause, taken = _clause_at(pieces, at)
        if taken:
            clauses.append(clause)
        elif pieces[at].form != "_AND":
            invalid.append(pieces[at].text)
        at += taken or 1
    if invalid:
        raise SearchError(refused(text, invalid))
    _refuse_left_sides(pieces)
    return tuple(clause for clause in clauses if clause is not None)


def _refuse_several(text: str, words: Sequence[Word]) -> None:
    ends = [place for place, word in enumerate(words) if word.text == ";"]
    if ends and ends[0] < len(words) - 1:
        raise SearchError(
            f"Search filter contained multiple expression {text!r}. Provide AND-ed expression list."
        )


def _groups(text: str, words: Sequence[Word]) -> list[Word]:
    """Parentheses, with a name right before them, become one word each."""
    found: list[Word] = []
    opened: list[int] = []
    for word in words:
        if word.form == "LPAR":
            opened.append(len(found))
        found.append(word)
        if word.form == "RPAR" and opened:
            first = opened.pop()
            if (
                first
                and found[first - 1].form == "NAME"
                and found[first - 1].end == found[first].start
            ):
                first -= 1
            start = found[first].start
            found[first:] = [Word("GROUP", text[start : word.end], start)]
    return found


def _operations(text: str, words: Sequence[Word]) -> list[Word]:
    """`a - b` and the like become one word."""
    found: list[Word] = []
    for place, word in enumerate(words):
        between = place >= 2 and words[place - 1].text in _ARITHMETIC
        if between and word.form in _OPERANDS and len(found) >= 2:
            left = next((w for w in reversed(found) if w.text not in _ARITHMETIC), None)
            if left is not None and left.form in _OPERANDS:
                while found and found[-1].start >= left.start:
                    found.pop()
                found.append(Word("OPERATION", text[left.start : word.end], left.start))
                continue
        found.append(word)
    return found


def _clause_at(pieces: Sequence[Word], at: int) -> tuple[Clause | None, int]:
    """The comparison that begins at a place, and how many pieces it takes (0: none begins)."""
    forms = [piece.form for piece in pieces[at : at + 4]]
    if (
        len(forms) >= 3
        and forms[0] in _OPERANDS
        and forms[1] == "OPERATOR"
        and forms[2] in _OPERANDS
    ):
        right = pieces[at + 2]
        operator = " ".join(pieces[at + 1].text.split())
        constant = Constant(_FORMS.get(right.form, "other"), right.text)
        return Clause(pieces[at].text, operator, constant), 3
    if forms[:3] == ["NAME", "_IN", "GROUP"] or forms[:4] == ["NAME", "_NOT", "_IN", "GROUP"]:
        raise SearchError(LIST_ILL_FORMED)
    if forms[:2] == ["NAME", "_IS"] and forms[2:3] in (["NULL"], ["NOT_NULL"]):
        return Clause(pieces[at].text, f"IS {pieces[at + 2].text.upper()}", None), 3
    return None, 0


def _refuse_left_sides(pieces: Sequence[Word]) -> None:
    """A comparison's left side must be a name; in a chain it is the comparison before."""
    for at, piece in enumerate(pieces):
        if piece.form == "OPERATOR" and at and pieces[at - 1].form != "NAME":
            found = pieces[at - 1].text
            raise SearchError(f"Invalid comparison clause. Expected 'Identifier' found '{found}'")
