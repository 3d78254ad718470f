"""A request, read: what it asks of which tool, in the form that is compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from recorder.verbs import kind_of, names_all_it_touches
from replayer.keys import (
    CHAIN_FIELDS,
    Chains,
    call_key,
    canonical_arguments,
    canonical_text,
    plain,
    request_key,
)
from replayer.state import names_in

Schemas = Callable[[str, str], Mapping[str, Any] | None]
"""Server and tool → the tool's input schema as last listed, if it was."""


@dataclass(frozen=True, slots=True)
class Identity:
    server: str
    method: str
    tool: str | None
    """The tool of a plain call; `None` for a later leg of a chain, and for other methods."""
    kind: str
    arguments: Mapping[str, Any]
    """Canonical; of what is no plain call, the params without `_meta`."""
    sent: Mapping[str, Any]
    """The arguments as they were sent."""
    text: str
    """The canonical arguments as text."""
    key: int | None
    """`None` for a leg of a chain that this conversation did not begin."""

    @property
    def is_call(self) -> bool:
        """Whether it calls a tool, as a leg of a chain does too."""
        return self.method == "tools/call"

    def values(self, everywhere: frozenset[int]) -> list[int]:
        """Number what the call names, for `state.World`.

        Args:
            everywhere: What nearly all calls to the server name, a root folder perhaps: it tells nothing.
        """
        if self.tool is None or not names_all_it_touches(self.tool, self.arguments):
            return []
        return [value for value in names_in(self.arguments) if value not in everywhere]

    @property
    def listed_as(self) -> str:
        """What its distinct calls are listed under: the tool's name, or one that no tool has."""
        return self.tool if self.tool is not None else f"{self.method}\0"


def identify(
    server: str,
    method: str,
    params: Mapping[str, Any],
    chains: Chains,
    schema: Mapping[str, Any] | None = None,
) -> Identity:
    """
    Args:
        chains: Of the conversation that the request belongs to.
        schema: The tool's input schema, whose defaults are left out of the arguments.

    Raises:
        RecursionError: the params are nested too deep to be compared.
    """
    name, arguments = params.get("name"), params.get("arguments")
    is_leg = not CHAIN_FIELDS.isdisjoint(params)
    if arguments is None:
        arguments = {}
    if method == "tools/call" and isinstance(name, str) and not is_leg and isinstance(arguments, dict):
        canonical = canonical_arguments(arguments, schema)
        text = canonical_text(canonical)
        kind = kind_of(name, canonical)
        key = call_key(server, name, text)
        return Identity(server, method, name, kind, canonical, arguments, text, key)
    others = {field: value for field, value in params.items() if field != "_meta"}
    leg_key = chains.key(server, method, params) if is_leg else request_key(server, method, params)
    kind = name if method == "tools/call" and isinstance(name, str) else method
    compared = plain(others)
    return Identity(server, method, None, kind, compared, params, canonical_text(compared), leg_key)
