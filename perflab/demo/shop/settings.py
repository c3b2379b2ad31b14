"""Read the shop's settings from the environment."""

from __future__ import annotations

import os


class SettingError(RuntimeError):
    """A service was started without a setting it needs."""


def required(name: str) -> str:
    """Return a setting that must be there."""
    value = os.environ.get(name, "")
    if not value:
        there = sorted(key for key in os.environ if key.startswith("SHOP_"))
        raise SettingError(
            f"the environment variable {name} is not set; set are: {', '.join(there) or 'none of SHOP_*'}"
        )
    return value


def number(name: str, default: float) -> float:
    """Return a setting that is a number, or its default."""
    text = os.environ.get(name, "")
    try:
        return float(text) if text else default
    except ValueError as error:
        raise SettingError(f"the environment variable {name} must be a number, not {text!r}") from error


def switched_on(name: str) -> bool:
    """Say whether a switch is on: 1, true, yes or on."""
    return os.environ.get(name, "").lower() in {"1", "true", "yes", "on"}
