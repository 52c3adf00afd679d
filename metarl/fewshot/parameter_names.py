"""Parameters of several networks in one set, told apart by the beginnings of their names."""

from metarl.adaptation import Parameters


def with_prefix(prefix: str, parameters: Parameters) -> Parameters:
    """The same parameters, all names beginning with `prefix`."""
    return {prefix + name: value for name, value in parameters.items()}


def part(prefix: str, parameters: Parameters) -> Parameters:
    """The parameters whose names begin with `prefix`, named without it."""
    return {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}
