"""The trail's query bar: words with a colon, comparisons as in a search of runs, and free text.

    actor:ana action:model.* outcome:denied resource:models/fraud* time:2026-01-01..2026-02-01
    (status >= 500 OR code = 'INTERNAL_ERROR') -route:*search "out of memory"

What stands side by side must all hold. The words, AND, OR, NOT and comparisons are those of
`grammar.py`, and so is the tree that it is read to.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from lark import Lark, Token, UnexpectedInput, UnexpectedToken

from muniment_projections.search.errors import SearchError
from muniment_projections.search.grammar import (
    CLAUSES_MAX,
    DEPTH_MAX,
    TERMINALS,
    TreeBuilder,
    bounded,
)
from muniment_projections.search.tree import And, Clause, Constant, Expression, Not

HAS = ":"
"""Operator of `field:value`."""

FREE = ""
"""Field of free text."""

SHOWN_CHARACTERS = 40
"""Of the place at which a query stops making sense."""

_RULES = r"""
?bar: disjunction
disjunction: conjunction (_OR conjunction)*
conjunction: negation (_AND? negation)*
?negation: _NOT negation -> negated
         | _MINUS negation -> negated
         | LPAR disjunction RPAR -> grouped
         | clause

clause: NAME OPERATOR value
      | NAME _IN elements -> among
      | NAME _NOT_IN elements -> not_among
      | NAME _IS NULL -> missing
      | NAME _IS NOT_NULL -> present
      | TERM -> term
      | text -> free
?text: NAME | STRING | NUMBER | WORD
?value: STRING | NAME | NUMBER | WORD
elements: LPAR item ("," item)* ","? RPAR
?item: STRING | NAME | NUMBER | WORD

_MINUS.9: /(?<![^\s(])-(?=[^\W\d]|["'(])/
TERM.8: /[A-Za-z_]+:("[^"]*"|'[^']*'|[^\s()"']+)/
_NOT_IN.6: /NOT\s+IN\b/i
WORD.5: /[\w.*?@\/+-]*[*?@\/+-][\w.*?@\/+-]*(?!:)/
"""


@cache
def _parser() -> Lark:
    grammar = _RULES + TERMINALS
    return Lark(grammar, parser="lalr", lexer="basic", start="bar", maybe_placeholders=False)


class _BarBuilder(TreeBuilder):
    """The same tree, with what only a query bar has."""

    def term(self, parts: list[Token]) -> Clause:
        field, _, value = parts[0].partition(":")
        return Clause(field, HAS, Constant("word", value))

    def free(self, parts: list[Token]) -> Clause:
        return Clause(FREE, HAS, Constant("word", str(parts[0])))

    def negated(self, parts: list[Any]) -> Not:
        return Not(parts[-1])


def parse_bar(text: str) -> Expression:
    """A query as a tree; "" holds always. Raises SearchError, which says where it went wrong."""
    bounded(text)
    if not text.strip():
        return And(())
    try:
        tokens = list(_parser().lex(text))
        _refuse_depth(tokens)
        return _BarBuilder(text).transform(_parser().parse(text))
    except UnexpectedInput as error:
        raise SearchError(_where(text, error)) from error


def _refuse_depth(tokens: list[Token]) -> None:
    depth = deepest = negations = 0
    for token in tokens:
        depth += (token.type == "LPAR") - (token.type == "RPAR")
        negations = negations + 1 if token.type in ("_NOT", "_MINUS") else 0
        deepest = max(deepest, depth + negations)
    if deepest > DEPTH_MAX:
        raise SearchError(f"A query nests at most {DEPTH_MAX} deep.")
    if len(tokens) > 4 * CLAUSES_MAX:
        raise SearchError(f"A query has at most {4 * CLAUSES_MAX} words, not {len(tokens)}.")


def _where(text: str, error: UnexpectedInput) -> str:
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        return f"The query is not complete: something is missing at its end, after '{text[-20:]}'."
    place = error.pos_in_stream or 0
    rest = text[place : place + SHOWN_CHARACTERS]
    return (
        f"The query cannot be read from character {place + 1} on, at '{rest}'. A query is made of "
        'field:value, comparisons (status >= 400), "free text", AND, OR, NOT, - and parentheses; '
        "values with spaces or parentheses need quotes."
    )
