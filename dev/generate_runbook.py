"""The table of every error message with its hint, read from where they are raised: no message is without its line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from bi_ops import errors
from bi_ops.meg.errors import CONNECTION_ERROR_RULES
from bi_ops.mongo.errors import DEFAULT_RULE, ERROR_RULES

_PACKAGE = Path(errors.__file__).parent
_TREE = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, errors.BiError)}


def table() -> str:
    """The messages in the order of the alphabet, as Markdown."""
    rules = (*ERROR_RULES, DEFAULT_RULE)
    rows = {rule.message: (rule.error.retryable, [rule.hint]) for rule in rules}
    rows |= {_cell(refusal.message): (False, [_cell(refusal.hint)]) for refusal in CONNECTION_ERROR_RULES}
    for file in sorted(_PACKAGE.rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _TREE and call.args:
                retryable = getattr(errors, call.func.id).retryable
                hints = [text for word in call.keywords if word.arg == "hint" for text in _texts(word.value)]
                messages = list(_texts(call.args[0]))
                paired = len(messages) == len(hints)  # as where one condition chooses both
                for number, what in enumerate(messages):
                    rows.setdefault(what, (retryable, []))[1].extend(hints[number : number + 1] if paired else hints)
    lines = ["| message | retried | hint |", "| --- | --- | --- |"]
    for what, (retryable, hints) in sorted(rows.items(), key=lambda row: row[0].lower()):
        lines.append(f"| {what} | {'yes' if retryable else 'no'} | {' Or: '.join(dict.fromkeys(hints))} |")
    return "\n".join(lines) + "\n"


def _texts(node: ast.expr) -> Iterator[str]:
    """Every text that an expression may give, with `…` for what is put in when it does."""
    match node:
        case ast.Constant(value=str(text)):
            yield _cell(text)
        case ast.JoinedStr(values=parts):
            yield _cell("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts))
        case ast.IfExp(body=one, orelse=other):
            yield from _texts(one)
            yield from _texts(other)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
