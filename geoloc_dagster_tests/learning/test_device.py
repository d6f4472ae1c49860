"""What runs where: precision, compiling, and the way of pictures to a device; what needs a GPU skips without one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from geoloc_dagster.learning.aggregation import build_network
from geoloc_dagster.learning.device import (
    ahead_on_device,
    answers_one_late,
    compile_where_it_pays,
    precision_of,
    steady_arithmetic,
)
from geoloc_dagster.learning.encoder import Encoder
from geoloc_dagster.learning.recipe import Recipe
from geoloc_dagster.learning.recipe_parts import ComputeSpec
from geoloc_dagster_tests.learning.city import tiny_recipe

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize(
    ("said", "device", "meant"), [("auto", CPU, "32"), ("auto", GPU, "bf16"), ("32", GPU, "32"), ("bf16", CPU, "bf16")]
)
def test_auto_is_half_precision_on_a_gpu_only(said: str, device: torch.device, meant: str):
    assert precision_of(ComputeSpec.model_validate({"precision": said}), device) == meant


def test_auto_compiles_long_trainings_on_a_gpu_only():
    """Saying that a network is to be compiled costs nothing; the compiler works at its first call."""
    auto, never, always = (ComputeSpec.model_validate({"compile": said}) for said in ("auto", "never", "always"))
    assert not compile_where_it_pays(nn.Linear(2, 2), auto, CPU, steps=10**6)
    assert not compile_where_it_pays(nn.Linear(2, 2), auto, GPU, steps=10)
    assert not compile_where_it_pays(nn.Linear(2, 2), never, GPU, steps=10**6)
    assert compile_where_it_pays(nn.Linear(2, 2), always, CPU, steps=1)


@pytest.mark.slow
def test_a_compiled_network_has_the_same_weights_and_answers():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    names, inputs = list(network.state_dict()), torch.randn(4, 6)
    plain = network(inputs)
    compile_where_it_pays(network, ComputeSpec(compile="always"), CPU, steps=1)
    torch.testing.assert_close(network(inputs), plain)
    assert list(network.state_dict()) == names


@pytest.mark.parametrize("device", [CPU, pytest.param(GPU, marks=needs_gpu)])
def test_answers_come_in_the_order_of_the_parts(device: torch.device):
    parts = [torch.full((3,), number, dtype=torch.uint8) for number in range(5)]
    assert [int(part[0]) for part in ahead_on_device(parts, device)] == [0, 1, 2, 3, 4]

    def ask(part: Tensor) -> Tensor:
        return part.float() * 2

    assert [int(said[0]) for said in answers_one_late(ask, parts, device)] == [0, 2, 4, 6, 8]
    assert list(answers_one_late(ask, [], device)) == []


def test_vectors_of_half_precision_have_length_one_and_point_the_same_way():
    recipe = tiny_recipe()
    torch.manual_seed(0)
    network = build_network(recipe)
    pictures = torch.randint(0, 256, (9, 3, 36, 36), dtype=torch.uint8)
    halves = Recipe.model_validate({**recipe.model_dump(), "compute": {"precision": "bf16"}})
    whole, half = (Encoder(network, one, "made").embed(pictures, batch_size=4) for one in (recipe, halves))
    assert abs((half**2).sum(1) - 1).max() < 1e-5
    assert (whole * half).sum(1).min() > 0.999
    assert abs(whole - half).max() > 0


def test_what_a_training_runs_on_is_not_what_it_is():
    """A killed training goes on with other devices, and a model keeps its name."""
    recipe = tiny_recipe()
    assert tiny_recipe(compute={"devices": 4, "precision": "bf16"}).recipe_hash() == recipe.recipe_hash()
    assert tiny_recipe(seed=1).recipe_hash() != recipe.recipe_hash()
    with pytest.raises(ValueError, match="a batch of 12 pictures cannot be shared by 5 devices"):
        tiny_recipe(compute={"devices": 5})
    with pytest.raises(ValueError, match="several nodes need a `rendezvous`"):
        ComputeSpec(nodes=2)


@pytest.mark.parametrize(
    ("device", "precision", "on"), [("cpu", "bf16-mixed", False), ("cpu", "32-true", True), ("cuda", "bf16-mixed", True)]
)
def test_bf16_on_a_cpu_is_trained_without_onednn(device: str, precision: str, on: bool):
    with steady_arithmetic(torch.device(device), precision):
        assert torch.backends.mkldnn.enabled == on
    assert torch.backends.mkldnn.enabled
