"""A file of settings in YAML, as people write it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from recorder.errors import FireflyError


class _Loader(yaml.SafeLoader):
    """Takes a date for the text that it is."""


_DATE = "tag:yaml.org,2002:timestamp"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in found if tag != _DATE]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_settings(path: Path) -> dict[str, Any]:
    """Return the names and values of a YAML file that holds one mapping; the values have a form in JSON.

    `1e-6` is a text in YAML 1.1, and is returned as one, and `no` is `False`.

    Raises:
        FireflyError: it cannot be read, or holds something else.
    """
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise FireflyError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise FireflyError(f"{path} is not YAML: {' '.join(str(error).split()):.200}") from error
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise FireflyError(f"{path} must hold names and values, such as learning_rate: 1e-5")
    for name, each in value.items():
        try:
            plain = _is_plain(each)
        except RecursionError:
            plain = False
        if not plain:
            raise FireflyError(f"{path}: {name} must be a number, text, list or mapping, got {each!r:.100}")
    return value


def _is_plain(value: object) -> bool:
    match value:
        case list():
            return all(map(_is_plain, value))
        case dict():
            return all(isinstance(name, str) and _is_plain(each) for name, each in value.items())
        case float():
            return not math.isnan(value)
        case _:
            return value is None or isinstance(value, str | int)
