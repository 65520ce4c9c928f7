"""Generates the tables of error messages: all of them for docs/runbook.md, the common ones for the DAGs' pages.

The messages are read from the rules for drivers' errors and from the code that raises errors, so none is missing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bi_ops import errors
from bi_ops.meg.postgres_error_rules import ERROR_RULES as MEG_RULES
from bi_ops.mongo.mongo_error_rules import ERROR_RULES as MONGO_RULES

_PACKAGE = Path(errors.__file__).parent
_CLASSES = {
    name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.BiError)
}
_COMMON_MESSAGES = (
    "BI_AGGREGATE is off, so nothing is read or published",
    "invalid run parameters",
    "MEG cannot be read",
    "authentication to MEG failed",
    "MongoDB cannot be reached",
    "authentication to MongoDB failed",
    "stage tasks have not completed, so nothing was published",
    "the load is not in the staging database",
    "… has changed since this load was planned",
    "the slice would shrink too much, so the live slice was left unchanged",
    "a newer snapshot is already live, so this older one was not published",
    "a newer reading is already live, so this older one was not published",
    "another run started to publish this slice, so this one stopped",
)


@dataclass
class Message:
    """What the tables say of a message.

    Attributes:
        retryable: Whether the task is retried.
        hints: The hints that the message is raised with.
    """

    retryable: bool
    hints: list[str] = field(default_factory=list)


def runbook_table(messages: Mapping[str, Message]) -> str:
    """All messages in alphabetical order, as Markdown."""
    return _table(sorted(messages, key=str.lower), messages)


def failure_table(messages: Mapping[str, Message]) -> str:
    """The messages that an operator is likely to meet, in the order of a load's tasks, as Markdown.

    Raises:
        KeyError: One of them does not exist.
    """
    return _table(_COMMON_MESSAGES, messages)


def _table(names: Iterator[str] | list[str] | tuple[str, ...], messages: Mapping[str, Message]) -> str:
    lines = ["| message | retried | hint |", "| --- | --- | --- |"]
    for name in names:
        message = messages[name]
        hint = " Or: ".join(dict.fromkeys(message.hints))
        lines.append(f"| {_cell(name)} | {'yes' if message.retryable else 'no'} | {_cell(hint)} |")
    return "\n".join(lines) + "\n"


def collect_messages() -> dict[str, Message]:
    """Every message, by its text with `…` for its variable parts."""
    messages = {rule.message: Message(rule.error.retryable, [rule.hint]) for rule in (*MEG_RULES, *MONGO_RULES)}
    trees = [ast.parse(file.read_text()) for file in sorted(_PACKAGE.rglob("*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    functions = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}
    for call in nodes:
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _CLASSES and call.args:
            hints = [text for word in call.keywords if word.arg == "hint" for text in _texts(word.value, functions)]
            texts = list(_texts(call.args[0], functions))
            paired = len(texts) == len(hints)  # where one condition chooses both
            for number, text in enumerate(texts):
                message = messages.setdefault(text, Message(getattr(errors, call.func.id).retryable))
                message.hints += hints[number : number + 1] if paired else hints
    return messages


def _texts(node: ast.expr, functions: Mapping[str, ast.FunctionDef]) -> Iterator[str]:
    """Every text that an expression may have, with `…` for the variable parts."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
        case ast.IfExp(body=body, orelse=orelse):
            yield from _texts(body, functions)
            yield from _texts(orelse, functions)
        case ast.Call(func=ast.Name(id=name)) if name in functions:
            returned = functions[name].body[-1]
            if isinstance(returned, ast.Return) and returned.value:
                yield from _texts(returned.value, functions)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
