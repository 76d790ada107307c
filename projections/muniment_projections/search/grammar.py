"""MLflow's filter and order_by language, read to a tree by one grammar.

The starting points share the clauses: `mlflow`, the flat list of comparisons that MLflow's clients
may write; `query`, the same with OR, NOT and parentheses; `order`, one order_by item; and `words`,
which accepts any text and serves to say what was wrong. The trail's query bar (`bar.py`) is made of
the same words. MLflow reads filters with sqlparse: the forms of names, strings and numbers below
are those that sqlparse tells apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, cast

from lark import Lark, Token, Transformer, UnexpectedInput, UnexpectedToken

from muniment_projections.search.errors import SearchError
from muniment_projections.search.refusals import Word, salvage
from muniment_projections.search.tree import And, Clause, Constant, Expression, Not, Or

FILTER_CHARACTERS_MAX = 500_000
"""Longer filters are refused; an IN list of 10,000 run ids is shorter."""

CLAUSES_MAX = 200
"""Comparisons in one filter; SQLite's limit of 64 joins bounds MLflow's own server lower."""

DEPTH_MAX = 50
"""Parentheses and NOTs that may be nested in a query."""

_RULES = r"""
mlflow: (_AND | clause)*
?query: disjunction
disjunction: conjunction (_OR conjunction)*
conjunction: negation (_AND negation)*
?negation: _NOT negation -> negated
         | LPAR disjunction RPAR -> grouped
         | clause

clause: NAME OPERATOR value
      | NAME _IN elements -> among
      | NAME _NOT _IN elements -> not_among
      | NAME _IS NULL -> missing
      | NAME _IS NOT_NULL -> present
?value: STRING | NAME | NUMBER | NULL | elements
elements: LPAR [item ("," item)* ","?] RPAR
?item: STRING | NAME | NUMBER

order: NAME NAME?

words: (NAME | STRING | NUMBER | OPERATOR | NULL | NOT_NULL | COMMENT | OTHER
        | _AND | _IN | _OR | _NOT | _IS | LPAR | RPAR | ",")*
"""

TERMINALS = r"""
_AND.5: /AND\b(?!\s*\.)/i
_OR.5: /OR\b(?!\s*\.)/i
_IN.5: /IN\b(?!\s*\.)/i
_IS.5: /IS\b(?!\s*\.)/i
_NOT.4: /NOT\b(?!\s*\.)/i
NOT_NULL.6: /NOT NULL\b/i
NULL.5: /NULL\b(?!\s*\.)/i
OPERATOR.6: /[<>=~!]+|(NOT\s+)?(LIKE|ILIKE|RLIKE)\b(?!\s*\.)/i
NUMBER.4: /-?\d+(\.\d+)?E-?\d+(?!\w)|-?(\d+\.\d*|\.\d+|\d+)(?![\w.])/i
STRING.3: /'(''|\\'|[^'])*'/
_QUOTED: /`(``|[^`])*`|"(""|[\\]["]|[^"])*"/
NAME.2: (_QUOTED | /[^\W\d]\w*/) (/\s*\./ (_QUOTED | /'[^']*'/ | /\s*\w+/))*
COMMENT.7: /(--|\#\ )[^\r\n]*/
LPAR: "("
RPAR: ")"
OTHER.-5: /\S/
%ignore /\s+/
"""

_FORMS: Final = {
    "NAME": "name",
    "STRING": "string",
    "NUMBER": "number",
    "NULL": "null",
    "WORD": "word",
}


@cache
def _parser() -> Lark:
    starts = ["mlflow", "query", "order", "words"]
    return Lark(
        _RULES + TERMINALS, parser="lalr", lexer="basic", start=starts, maybe_placeholders=False
    )


def _constant(part: Token | Constant) -> Constant:
    return part if isinstance(part, Constant) else Constant(_FORMS[part.type], str(part))


class TreeBuilder(Transformer[Token, Expression]):
    """Turns lark's nodes into ours, from the leaves up; text: what was parsed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def clause(self, parts: list[Any]) -> Clause:
        return Clause(str(parts[0]), " ".join(parts[1].split()), _constant(parts[2]))

    def among(self, parts: list[Any]) -> Clause:
        return Clause(str(parts[0]), "IN", parts[1])

    def not_among(self, parts: list[Any]) -> Clause:
        return Clause(str(parts[0]), "NOT IN", parts[1])

    def missing(self, parts: list[Any]) -> Clause:
        return Clause(str(parts[0]), "IS NULL", None)

    def present(self, parts: list[Any]) -> Clause:
        return Clause(str(parts[0]), "IS NOT NULL", None)

    def elements(self, parts: list[Any]) -> Constant:
        opened, *items, closed = parts
        text = self._text[opened.start_pos : closed.end_pos]
        return Constant("list", text, tuple(map(_constant, items)))

    def mlflow(self, parts: list[Any]) -> And:
        return And(tuple(parts))

    def conjunction(self, parts: list[Any]) -> Expression:
        return And(tuple(parts)) if len(parts) > 1 else cast(Expression, parts[0])

    def disjunction(self, parts: list[Any]) -> Expression:
        return Or(tuple(parts)) if len(parts) > 1 else cast(Expression, parts[0])

    def grouped(self, parts: list[Any]) -> Expression:
        return cast(Expression, parts[1])

    def negated(self, parts: list[Any]) -> Not:
        return Not(parts[0])


def _words(text: str) -> list[Word]:
    tokens = _parser().lex(text)
    return [Word(token.type, str(token), token.start_pos or 0) for token in tokens]


def parse_filter(text: str, refused: Callable[[str, Sequence[str]], str]) -> tuple[Clause, ...]:
    """What an MLflow client wrote, as the comparisons that must all hold; "" gives none.

    refused: MLflow's message for the pieces of the text that are no comparison (it differs by
    entity). Raises SearchError for them, and for filters beyond FILTER_CHARACTERS_MAX, CLAUSES_MAX.
    """
    if not text:
        return ()
    bounded(text)
    if not text.strip():
        raise SearchError(f"Invalid filter '{text}'. Could not be parsed.")
    try:
        tree = TreeBuilder(text).transform(_parser().parse(text, start="mlflow"))
        clauses = cast(tuple[Clause, ...], cast(And, tree).terms)
    except UnexpectedInput:
        clauses = salvage(text, _words(text), refused)
    if len(clauses) > CLAUSES_MAX:
        raise SearchError(f"A filter has at most {CLAUSES_MAX} comparisons, not {len(clauses)}.")
    return clauses


def parse_query(text: str) -> Expression:
    """A filter in the whole language: AND, OR, NOT and parentheses; "" holds always.

    Raises SearchError with the place where the text stops making sense.
    """
    bounded(text)
    if not text.strip():
        return And(())
    if _depth(_words(text)) > DEPTH_MAX:
        raise SearchError(f"A query nests at most {DEPTH_MAX} deep.")
    try:
        return TreeBuilder(text).transform(_parser().parse(text, start="query"))
    except UnexpectedInput as e:
        ended = isinstance(e, UnexpectedToken) and e.token.type == "$END"
        where = "at its end" if ended else f"at '{text[e.pos_in_stream or 0 :][:40]}'"
        raise SearchError(f"The filter could not be read {where}.") from e


def bounded(text: str) -> None:
    """Raise SearchError for a filter that is too long, or that is no text."""
    if len(text) > FILTER_CHARACTERS_MAX:
        raise SearchError(
            f"A filter has at most {FILTER_CHARACTERS_MAX} characters, not {len(text)}."
        )
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise SearchError(f"Error on parsing filter {text!r}") from e


def _depth(words: Sequence[Word]) -> int:
    deepest = depth = negations = 0
    for word in words:
        depth += (word.form == "LPAR") - (word.form == "RPAR")
        negations = negations + 1 if word.form == "_NOT" else 0
        deepest = max(deepest, depth + negations)
    return deepest


def parse_order(text: str) -> tuple[str, bool]:
    """One order_by item as the name that it sorts by, quotes kept, and whether it ascends.

    Raises SearchError with MLflow's messages.
    """
    try:
        tokens = _parser().parse(text, start="order").children
    except UnexpectedInput as e:
        message = f"Invalid order_by clause '{text}'. Could not be parsed."
        raise SearchError(message) from e
    if len(tokens) == 1:
        return str(tokens[0]), True
    direction = str(tokens[1]).lower()
    if direction not in ("asc", "desc"):
        raise SearchError(f"Invalid ordering key in order_by clause '{text}'.")
    return str(tokens[0]), direction == "asc"
