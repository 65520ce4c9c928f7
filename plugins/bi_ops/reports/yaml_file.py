"""Reads a definition from a YAML file, with errors that name the file, and the line or the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from bi_ops.errors import ReportError

Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: Path, model: type[Model], **values: Any) -> Model:
    """The validated content of a file.

    Args:
        path: The file, in a folder of include/.
        model: The model of its content.
        **values: Fields of the model that the file does not have.

    Raises:
        ReportError: The file is not YAML, or not what the model expects.
    """
    try:
        content = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise invalid_file(path, "valid YAML", _describe(error)) from None
    if not isinstance(content, dict):
        raise invalid_file(path, "a mapping of fields to values", f"{type(content).__name__} at the top level")
    try:
        return model.model_validate({**values, **content})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        raise invalid_file(path, f"the fields of {model.__name__}", f"{field}: {message}") from None


def invalid_file(path: Path, expected: str, actual: str) -> ReportError:
    """The error of a file that is not as expected."""
    return ReportError(
        "invalid report definition",
        context=f"include/{path.parent.name}/{path.name}",
        expected=expected,
        actual=actual,
        hint="Correct the file.",
    )


def _describe(error: yaml.YAMLError) -> str:
    """The first problem with its place, on one line."""
    if not isinstance(error, yaml.MarkedYAMLError) or not error.problem_mark:
        return " ".join(str(error).split())
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
