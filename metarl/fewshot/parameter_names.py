"""Parameters of several networks in one set, distinguished by prefixes of their names."""

from metarl.adaptation import Parameters


def with_prefix(prefix: str, parameters: Parameters) -> Parameters:
    """The same parameters, with `prefix` added to all names."""
    return {prefix + name: value for name, value in parameters.items()}


def part(prefix: str, parameters: Parameters) -> Parameters:
    """The parameters whose names begin with `prefix`, with the prefix removed."""
    return {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}
