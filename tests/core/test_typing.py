"""Public tensor functions carry shapes in their signatures, and a wrong shape raises under pytest."""

import importlib
import inspect
import pkgutil
import typing

import jaxtyping
import pytest
import torch
from torch import Tensor

import metarl.adaptation
import metarl.nn
import metarl.rollout
import metarl.statistics
from metarl.randomness import EnvStreams
from metarl.rollout import Trajectories, discounted_returns, gae, standardize
from metarl.statistics import interquartile_mean

PACKAGES = [metarl.rollout, metarl.nn, metarl.statistics, metarl.adaptation]


def public_functions():
    modules = {module.__name__: module for module in PACKAGES}
    for package in PACKAGES:
        for _, name, _ in pkgutil.iter_modules(getattr(package, "__path__", [])):
            modules[f"{package.__name__}.{name}"] = importlib.import_module(f"{package.__name__}.{name}")
    for module in modules.values():
        for name, value in vars(module).items():
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_"):
                yield pytest.param(value, id=f"{module.__name__}.{name}")


@pytest.mark.parametrize("function", list(public_functions()))
def test_no_tensor_goes_without_a_shape(function):
    hints = typing.get_type_hints(inspect.unwrap(function))
    assert "return" in hints
    for name, hint in hints.items():
        # The tensors of a parameter dictionary each have their own.
        parts = () if typing.get_origin(hint) is dict else (hint, *typing.get_args(hint))
        assert Tensor not in parts, f"{name}: {hint} has no shape"


def test_the_sweep_finds_the_functions():
    assert {"discounted_returns", "gae", "standardize", "interquartile_mean"} <= {
        parameter.values[0].__name__ for parameter in public_functions()
    }


@pytest.mark.parametrize(
    "call",
    [
        lambda: discounted_returns(torch.zeros(3, 2), torch.zeros(4, 2, dtype=torch.bool), 0.9),
        lambda: discounted_returns(torch.zeros(3, 2), torch.zeros(3, 2), 0.9),
        lambda: gae(
            *[torch.zeros(3, 2)] * 2, torch.zeros(2, 2), *[torch.zeros(3, 2) > 0] * 2, discount=0.9, gae_lambda=1.0
        ),
        lambda: standardize(torch.zeros(3), torch.ones(3)),
        lambda: interquartile_mean([1.0, 2.0]),
        lambda: EnvStreams(torch.zeros(3)),
        lambda: Trajectories(*[torch.zeros(3, 2)] * 9),
    ],
)
def test_a_wrong_shape_or_dtype_raises(call):
    with pytest.raises(jaxtyping.TypeCheckError):
        call()
