"""A file of settings in YAML, as people write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from recorder.errors import FireflyError


def read_settings(path: Path) -> dict[str, Any]:
    """Return the names and values of a YAML file that holds one mapping.

    `1e-6` is a text in YAML 1.1, and is returned as one.

    Raises:
        FireflyError: it cannot be read, or holds something else.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FireflyError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise FireflyError(f"{path} is not YAML: {' '.join(str(error).split()):.200}") from error
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise FireflyError(f"{path} must hold names and values, such as learning_rate: 1e-5")
    return value
