"""The table of every error message with its cure, read from where they are raised: no message is without its line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from bi_ops import errors, source_errors, store_errors

_PACKAGE = Path(errors.__file__).parent
_TREE = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, errors.BiError)}


def table() -> str:
    """The messages in the order of the alphabet, as Markdown."""
    rules = (*store_errors.RULES, store_errors.OTHER)
    rows = {rule.message: (rule.error.heals_by_itself, [rule.hint]) for rule in rules}
    rows |= {_told(refusal.what): (False, [_told(refusal.cure)]) for refusal in source_errors.REFUSALS}
    for file in sorted(_PACKAGE.rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _TREE and call.args:
                healed = getattr(errors, call.func.id).heals_by_itself
                cures = [text for word in call.keywords if word.arg == "cure" for text in _texts(word.value)]
                whats = list(_texts(call.args[0]))
                paired = len(whats) == len(cures)  # as where one condition chooses both
                for number, what in enumerate(whats):
                    rows.setdefault(what, (healed, []))[1].extend(cures[number : number + 1] if paired else cures)
    lines = ["| the message says | tried again | what to do |", "| --- | --- | --- |"]
    for what, (healed, cures) in sorted(rows.items(), key=lambda row: row[0].lower()):
        lines.append(f"| {what} | {'yes' if healed else 'no'} | {' Or: '.join(dict.fromkeys(cures))} |")
    return "\n".join(lines) + "\n"


def _texts(node: ast.expr) -> Iterator[str]:
    """Every text that an expression may give, with `…` for what is put in when it does."""
    match node:
        case ast.Constant(value=str(text)):
            yield _told(text)
        case ast.JoinedStr(values=parts):
            yield _told("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts))
        case ast.IfExp(body=one, orelse=other):
            yield from _texts(one)
            yield from _texts(other)


def _told(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
