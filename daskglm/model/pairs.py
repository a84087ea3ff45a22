"""Which family goes with which link, decided before any data is read."""

from __future__ import annotations

from typing import Any

from daskglm.errors import DesignError, closest
from daskglm.model.families import ALIASES, FAMILIES, Family
from daskglm.model.links import LINKS, Link


def named(kind: str, table: dict[str, Any], value: object, attribute: str, aliases: dict[str, str]) -> Any:
    """The object a user means by a name or by an object."""
    if isinstance(value, str):
        name = aliases.get(value, value)
        if name not in table:
            known = ", ".join(table)
            raise DesignError(f'there is no {kind} "{value}"{closest(value, [*table, *aliases])}; there are: {known}')
        return table[name]()
    if isinstance(value, type):
        value = value()
    if not hasattr(value, attribute):
        raise DesignError(f"{kind}={value!r} is neither a name nor a {kind}; there are: {', '.join(table)}")
    return value


def resolve(family: object, link: object = None) -> tuple[Family, Link]:
    """The family and link meant by names or objects, or a DesignError that says why the pair makes no sense."""
    chosen: Family = named("family", FAMILIES, family, "unit_deviance", ALIASES)
    bridge: Link = named("link", LINKS, chosen.default_link if link is None else link, "inverse", {})
    if bridge.name not in chosen.links:
        low, high = chosen.mean_range
        raise DesignError(
            f"the {bridge.name} link, g(mu) = {bridge.formula}, does not go with the {chosen.name} family, whose mean "
            f"lies in ({low:g}, {high:g}): the means that link can give do not match; "
            f"links for {chosen.name}: {', '.join(chosen.links)}"
        )
    return chosen, bridge
