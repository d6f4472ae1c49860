"""Branches, what they exchange, and which classifier says what: whatever could be swapped in silence is told apart here."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from geoloc_dagster.errors import RecipeError, WeightsError
from geoloc_dagster.geo.partitioning import DROPPED, LevelRule, Partitioning, partition
from geoloc_dagster.learning.cells_losses import CellsLoss, scene_weights, unit_vectors
from geoloc_dagster.learning.cells_network import SCENE
from geoloc_dagster.learning.multitask_network import (
    NO_CLASS,
    MultitaskNetwork,
    TokenAttention,
    TokenExchange,
    build_multitask_network,
    check_classes,
    class_channels,
)
from geoloc_dagster.learning.multitask_recipe import MultitaskHeadSpec, TransformerSpec
from geoloc_dagster.learning.transformer import build_branch
from geoloc_dagster_tests.learning.globe import multitask_recipe

LEVELS = ["coarse", "middle", "fine"]
CLASSES = dict.fromkeys(LEVELS, 3)
BASIC = {"name": "vit_basic", "patch": 8, "width": 32, "depth": 2, "heads": 2}


@pytest.fixture(scope="module")
def three_cells() -> Partitioning:
    """Three levels of three cells each: all heads as large as that of the scene, so that a swap is no error of shapes."""
    towns = np.repeat([[59.0, 18.0], [-33.0, 18.0], [35.0, 139.0]], 5, axis=0)
    cells = partition(towns[:, 0], towns[:, 1], [LevelRule(level, 1, 12 - n) for n, level in enumerate(LEVELS)])
    assert [len(level) for level in cells.levels] == [3, 3, 3]
    return cells


def network_of(**changes: object) -> MultitaskNetwork:
    torch.manual_seed(0)
    return build_multitask_network(multitask_recipe(**changes), CLASSES).eval()


def seen(photos: int = 4, size: int = 32) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    maps = torch.randint(0, 9, (photos, size // 8, size // 8), generator=rng).to(torch.uint8)
    return torch.randn(photos, 3, size, size, generator=rng), maps.repeat_interleave(8, 1).repeat_interleave(8, 2)


def stirred(network: MultitaskNetwork) -> MultitaskNetwork:
    """With exchanges that have learned something."""
    with torch.no_grad():
        for exchange in network.exchanges:
            for parameter in exchange.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())) * 0.3)
    return network


def test_every_loss_comes_from_the_classifier_of_its_own_name(three_cells: Partitioning):
    """Each head says something of its own; the losses, and their published weights, are then known numbers."""
    network = network_of()
    said = {"coarse": [2.0, 0.0, 0.0], "middle": [0.0, 3.0, 0.0], "fine": [1.0, 0.0, 4.0], SCENE: [0.5, 1.5, 0.0]}
    assert network.scene is not None
    with torch.no_grad():
        for name, values in said.items():
            head = network.scene if name == SCENE else network.heads[name]
            assert isinstance(head, nn.Linear)
            head.weight.zero_()
            head.bias.copy_(torch.tensor(values))
    loss = CellsLoss(MultitaskHeadSpec(), three_cells, LEVELS)
    target = {"coarse": 0, "middle": 2, "fine": 1, SCENE: 2}
    classes = torch.tensor([[target[level] for level in LEVELS]] * 4)
    parts = loss(network(seen()), classes, unit_vectors(np.zeros(4), np.zeros(4)), torch.tensor([[0.0, 0.0, 1.0]] * 4))
    expected = {name: float(np.log(np.exp(values).sum()) - values[target[name]]) for name, values in said.items()}
    assert {name: parts[name].item() for name in said} == pytest.approx(expected, abs=1e-5)
    total = 0.5 * expected["coarse"] + 0.3 * expected["middle"] + 0.2 * expected["fine"] + expected[SCENE]
    assert parts["loss"].item() == pytest.approx(total, abs=1e-5)


def test_a_loss_moves_its_own_classifier_and_no_other(three_cells: Partitioning):
    network = network_of()
    loss = CellsLoss(MultitaskHeadSpec(), three_cells, LEVELS)
    classes, scenes = torch.tensor([[0, 1, 2]] * 4), torch.tensor([[0.2, 0.3, 0.5]] * 4)
    assert network.scene is not None
    heads = {**dict(network.heads.items()), SCENE: network.scene}
    for name in heads:
        network.zero_grad()
        loss(network(seen()), classes, unit_vectors(np.zeros(4), np.zeros(4)), scenes)[name].backward()
        moved = {other for other, head in heads.items() if any(p.grad is not None and p.grad.any() for p in head.parameters())}
        assert moved == {name}


def test_a_photo_of_a_dropped_cell_or_an_unknown_scene_moves_nothing_there(three_cells: Partitioning):
    logits = {name: torch.randn(2, 3, requires_grad=True) for name in (*LEVELS, SCENE)}
    classes = torch.tensor([[0, DROPPED, 1], [DROPPED, DROPPED, 2]])
    scenes = torch.tensor([[np.nan] * 3, [0.1, 0.2, 0.7]])
    loss = CellsLoss(MultitaskHeadSpec(), three_cells, LEVELS)
    loss(logits, classes, unit_vectors(np.zeros(2), np.zeros(2)), scenes)["loss"].backward()
    moved = {name: [bool(row.any()) for row in value.grad] for name, value in logits.items() if value.grad is not None}
    assert moved == {"coarse": [True, False], "middle": [False, False], "fine": [True, True], SCENE: [False, True]}


def test_rare_scenes_count_more_where_the_recipe_says_so(three_cells: Partitioning):
    scenes = torch.tensor([[1.0, 0, 0]] * 90 + [[0, 1.0, 0]] * 9 + [[0, 0, 1.0]] + [[np.nan] * 3] * 50)
    counts = torch.tensor([90.0, 9.0, 1.0])
    for balance in ("none", "sqrt_inverse", "effective_number"):
        weights = scene_weights(scenes, balance)
        assert float((weights * counts).sum() / 100) == pytest.approx(1, abs=1e-5), "a photo counts 1 on average"
    square_root, effective = scene_weights(scenes, "sqrt_inverse"), scene_weights(scenes, "effective_number")
    assert float(square_root[2] / square_root[0]) == pytest.approx(90**0.5, rel=1e-4)
    assert float(effective[2] / effective[0]) == pytest.approx((1 - 0.999**90) / (1 - 0.999), rel=1e-3)
    spec = MultitaskHeadSpec.model_validate({"scene": {"balance": "sqrt_inverse"}})
    logits = {name: torch.zeros(1, 3) for name in (*LEVELS, SCENE)}
    rare = torch.tensor([[0.0, 0.0, 1.0]])
    parts = CellsLoss(spec, three_cells, LEVELS, scenes)(logits, torch.zeros(1, 3).long(), unit_vectors(*np.zeros((2, 1))), rare)
    assert parts[SCENE].item() == pytest.approx(float(square_root[2]) * np.log(3), rel=1e-4)


def test_what_is_exchanged_is_the_sum_of_both_class_tokens_in_the_shared_width():
    rng = torch.Generator().manual_seed(3)
    tokens, others = torch.randn(2, 5, 8, generator=rng), torch.randn(2, 4, 8, generator=rng)
    for replace in (False, True):
        exchange = TokenExchange((8, 8), 6, replace=replace)
        for parameter in exchange.parameters():
            parameter.data = torch.randn(parameter.shape, generator=rng)
        after, other_after = exchange(tokens, others)
        shared = exchange.to_shared[0](tokens[:, 0]) + exchange.to_shared[1](others[:, 0])
        for branch, changed, back in ((tokens, after, exchange.back[0]), (others, other_after, exchange.back[1])):
            expected = back(shared) + (0 if replace else branch[:, 0])
            assert torch.allclose(changed[:, 0], expected, atol=1e-5)
            assert torch.equal(changed[:, 1:], branch[:, 1:]), "patch tokens stay in their branch"


def test_attention_gives_each_last_class_token_its_own_weight():
    attention = TokenAttention((4, 4))
    with torch.no_grad():
        attention.to_first.weight.copy_(torch.eye(4))
        attention.to_first.bias.zero_()
        attention.score.weight.copy_(torch.tensor([[1.0, 0, 0, 0]]))
    token, other = torch.tensor([[2.0, 1, 0, 0]]), torch.tensor([[0.0, 0, 1, 0]])
    share = float(torch.sigmoid(torch.tensor(2.0)))
    expected = torch.tensor([[2 * share, share, 1 - share, 0]])
    assert torch.allclose(attention(token, other), expected, atol=1e-6)


def test_before_anything_is_learned_exchanges_leave_the_branches_as_they_are():
    early, late = network_of(), network_of(branches={"fusion": "late"})
    late.load_state_dict(early.state_dict(), strict=False)
    assert torch.allclose(early.features(seen()), late.features(seen()), atol=1e-6)
    assert not torch.allclose(stirred(early).features(seen()), late.features(seen()), atol=1e-2), "an exchange does something"


class FirstOnly(nn.Module):
    def forward(self, token: Tensor, other: Tensor) -> Tensor:
        return token


@pytest.mark.parametrize(("branches", "reached"), [({"shared_width": 16}, True), ({"fusion": "late"}, False)])
def test_exchanges_carry_the_photos_classifier_into_the_segmentation_branch(branches: dict[str, object], reached: bool):
    network = stirred(network_of(branches=branches))
    network.attention = FirstOnly()  # type: ignore[assignment]
    network(seen())["fine"].sum().backward()
    assert network.segmentation is not None
    gradient = network.segmentation.body.patch_embed.proj.weight.grad
    assert (gradient is not None and bool(gradient.any())) == reached


def test_photo_and_map_are_told_apart():
    network = stirred(network_of())
    pictures, maps = seen()
    said = network((pictures, maps))["fine"]
    assert not torch.allclose(said, network((pictures, maps.flip(0)))["fine"], atol=1e-3)
    assert not torch.allclose(said, network((pictures.flip(0), maps))["fine"], atol=1e-3)
    alone = network_of(branches={"segmentation": False})
    assert torch.equal(alone((pictures, maps))["fine"], alone((pictures, None))["fine"])


def test_a_photo_without_a_map_is_one_whose_every_pixel_is_unknown():
    network = stirred(network_of())
    pictures, maps = seen()
    unknown = torch.full_like(maps, NO_CLASS)
    assert torch.equal(network((pictures, None))["fine"], network((pictures, unknown))["fine"])
    mixed = torch.cat([maps[:2], unknown[2:]])
    assert torch.allclose(network((pictures, mixed))["fine"][:2], network((pictures, maps))["fine"][:2], atol=1e-5)
    assert network.segmentation is not None
    assert network.segmentation.mask_token is not None
    before = network((pictures, None))["fine"]
    with torch.no_grad():
        network.segmentation.mask_token.add_(torch.randn(32))
    assert not torch.allclose(before, network((pictures, None))["fine"], atol=1e-3)
    assert torch.equal(network((pictures, maps))["fine"], network((pictures, maps))["fine"])


def test_classes_become_channels_and_the_unknown_none():
    maps = torch.tensor([[[0, 2], [1, NO_CLASS]]], dtype=torch.uint8)
    channels, known = class_channels(maps, 3)
    assert channels[0].argmax(0).tolist() == [[0, 2], [1, 0]]
    assert known[0, 0].tolist() == [[1, 1], [1, 0]]
    check_classes(maps, 3)
    with pytest.raises(RecipeError, match=r"hold class 2, and 2 channels .*seg_channels: 3"):
        check_classes(maps, 2)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_tiny_patch16_224", 64),
        ("vit_tiny_r_s16_p8_224", 64),
        ("vit_small_patch14_reg4_dinov2", 56),
        ("deit3_small_patch16_224", 48),
    ],
)
def test_a_photo_alone_is_seen_as_timm_sees_it(name: str, size: int):
    """Positions, class and register tokens, the norms before and after: as the transformer's own code has them."""
    torch.manual_seed(0)
    branch = build_branch(TransformerSpec(name=name), size, 3).eval()
    pictures = seen(2, size)[0] if size % 8 == 0 else torch.randn(2, 3, size, size)
    tokens = branch.first(pictures)
    for number in range(branch.depth):
        tokens = branch.layer(number, tokens)
    assert torch.allclose(branch.last(tokens), branch.body.forward_features(pictures)[:, 0], atol=1e-4)


def test_layers_are_dropped_at_random_in_training_only_and_never_in_a_frozen_branch():
    torch.manual_seed(0)
    spec = TransformerSpec.model_validate({**BASIC, "depth": 4, "drop_path": 0.5})
    for frozen in (False, True):
        branch = build_branch(spec.model_copy(update={"frozen": frozen}), 32, 3)
        branch.train()
        tokens = branch.first(seen()[0])
        several = [branch.layer(3, tokens) for _ in range(6)]
        assert all(torch.equal(several[0], one) for one in several) == frozen
        assert all(parameter.requires_grad != frozen for parameter in branch.body.parameters())


def test_branches_that_cannot_be_built_say_why():
    with pytest.raises(RecipeError, match="timm has no model 'vit_tinny'"):
        build_branch(TransformerSpec(name="vit_tinny"), 32, 3)
    with pytest.raises(RecipeError, match="resnet18"):
        build_branch(TransformerSpec(name="resnet18"), 32, 3)
    with pytest.raises(RecipeError, match="needs the class token"):
        build_branch(TransformerSpec(name="vit_base_patch16_siglip_224"), 32, 3)
    with pytest.raises(RecipeError, match="run one by one"):
        build_branch(TransformerSpec(name="eva02_tiny_patch14_224"), 28, 3)
    deeper = {**BASIC, "depth": 3}
    with pytest.raises(RecipeError, match=r"branches of 2 and 3 layers .*fusion: late"):
        network_of(branches={"backbone": deeper})
    assert network_of(branches={"backbone": {**deeper, "width": 16}, "fusion": "late"})(seen())["fine"].shape == (4, 3)


def test_weights_of_a_file_are_read_for_both_branches_at_another_size(tmp_path: Path):
    torch.manual_seed(5)
    theirs = VisionTransformer(img_size=64, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=10)
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    network = network_of(backbone={**BASIC, "weights": str(tmp_path / "theirs.safetensors")})
    assert network.segmentation is not None
    for body in (network.photo.body, network.segmentation.body):
        assert torch.equal(body.blocks[1].mlp.fc1.weight, theirs.blocks[1].mlp.fc1.weight)
        assert body.pos_embed.shape == (1, 17, 32)
    patches = network.segmentation.body.patch_embed.proj.weight
    assert patches.shape[1] == 9
    assert torch.allclose(patches[:, 0], theirs.patch_embed.proj.weight[:, 0] / 3, atol=1e-6)
    save_file({"blocks.0.norm1.weight": torch.ones(32)}, tmp_path / "part.safetensors")
    with pytest.raises(WeightsError, match="has no weights for"):
        network_of(backbone={**BASIC, "weights": str(tmp_path / "part.safetensors")})


def test_weights_of_the_hub_without_a_network_are_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert timm.is_model("vit_tiny_patch16_224")
    with pytest.raises(WeightsError, match=r"hub's weights of timm/vit_tiny_patch16_224 cannot be had.*local file"):
        build_branch(TransformerSpec(name="vit_tiny_patch16_224", weights="hub"), 32, 3)
