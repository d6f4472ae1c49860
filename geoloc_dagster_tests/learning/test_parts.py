"""Sampler, pictures, losses, aggregation and backbones, each by what its users rely on."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from geoloc_dagster.dataset.pictures import decode_picture
from geoloc_dagster.errors import ImageError, IntegrityError, RecipeError, UnsafeFileError, WeightsError
from geoloc_dagster.learning.aggregation import GeM, Whitening, build_network
from geoloc_dagster.learning.augmentation import augment, plain, prepared
from geoloc_dagster.learning.backbones import build_backbone
from geoloc_dagster.learning.losses import PlaceLoss
from geoloc_dagster.learning.pictures import read_pictures
from geoloc_dagster.learning.recipe import LossSpec
from geoloc_dagster.learning.recipe_parts import AugmentationSpec, BackboneSpec, Normalisation
from geoloc_dagster.learning.rows import select_rows
from geoloc_dagster.learning.sampler import PlaceBatchSampler
from geoloc_dagster_tests.learning.city import City, picture, tiny_recipe


# --- sampler
def test_batches_hold_p_places_with_k_pictures_of_different_dates():
    places = np.repeat(np.arange(10), 6)
    dates = np.tile([0, 0, 0, 1, 2, 3], 10)
    batches = list(PlaceBatchSampler(places, dates, 3, 4, seed=0, epoch=0))
    assert len(batches) == 3
    for batch in batches:
        assert sorted(Counter(places[batch].tolist()).values()) == [4, 4, 4]
        for place in set(places[batch].tolist()):
            assert sorted(dates[row] for row in batch if places[row] == place) == [0, 1, 2, 3]
    assert len({place for batch in batches for place in places[batch].tolist()}) == 9


def test_a_place_with_fewer_pictures_repeats_them():
    batch = next(iter(PlaceBatchSampler(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), 2, 4, seed=0, epoch=0)))
    assert Counter(batch) == {0: 2, 1: 2, 2: 2, 3: 2}


def test_the_order_follows_from_seed_and_epoch():
    places, dates = np.repeat(np.arange(20), 3), np.tile(np.arange(3), 20)

    def order(seed: int, epoch: int) -> list[list[int]]:
        return list(PlaceBatchSampler(places, dates, 4, 2, seed, epoch))

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


# --- rows and pictures
def test_places_are_views_or_locations(city: City):
    recipe = tiny_recipe()
    assert select_rows(recipe.data, city.catalog).place_count == 12
    assert select_rows(recipe.data.model_copy(update={"place": "location"}), city.catalog).place_count == 6


def test_pictures_come_in_the_order_asked_for(city: City):
    ids = [city.capture_ids[7], city.capture_ids[2], city.capture_ids[7]]
    pictures = read_pictures(city.crops, ids, 24)
    assert pictures.shape == (3, 3, 24, 24)
    assert pictures.dtype == torch.uint8
    assert torch.equal(pictures[0], pictures[2])
    assert torch.equal(pictures[1], read_pictures(city.crops, [city.capture_ids[2]], 24)[0])


def test_unknown_captures_and_missing_tables_are_named(city: City, tmp_path: Path):
    with pytest.raises(IntegrityError, match="the first is nowhere"):
        read_pictures(city.crops, ["nowhere"], 24)
    with pytest.raises(IntegrityError, match=r"none\.lance is missing"):
        read_pictures(tmp_path / "none.lance", [], 24)


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_a_truncated_picture_is_an_image_error(cut: int):
    encoded = picture(np.full((6, 6, 3), 90.0), np.random.default_rng(0))
    with pytest.raises(ImageError):
        decode_picture(encoded[:cut], 24)


def test_a_large_picture_is_reduced_and_greys_become_rgb():
    stream = io.BytesIO()
    Image.new("L", (640, 640), 100).save(stream, "JPEG")
    decoded = decode_picture(stream.getvalue(), 64)
    assert decoded.shape == (64, 64, 3)
    assert abs(int(decoded.mean()) - 100) <= 1


# --- augmentation
def test_augmentation_follows_from_its_generator_and_is_never_mirrored():
    spec = AugmentationSpec(grey=0.5, blur=0.5, erase=0.5, colour_cast=0.2)
    pictures = torch.randint(0, 256, (6, 3, 40, 40), dtype=torch.uint8)
    one, same, other = (augment(pictures, 32, spec, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one.shape == (6, 3, 32, 32)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    ramp = torch.arange(40).mul(6).to(torch.uint8).expand(50, 3, 40, 40)
    mild = augment(ramp, 32, AugmentationSpec(min_scale=0.6), torch.Generator().manual_seed(0))
    assert (mild[..., -1] > mild[..., 0]).all()


def test_a_picture_normalised_by_itself_does_not_change_with_the_light():
    noon = torch.randint(20, 120, (4, 3, 32, 32))
    dusk = (noon.float() * torch.tensor([0.5, 0.75, 1.0]).view(1, 3, 1, 1)).round().to(torch.uint8)
    by_itself = (plain(pictures.to(torch.uint8), 32, "picture") for pictures in (noon, dusk))
    torch.testing.assert_close(*by_itself, atol=0.1, rtol=0)
    apart = (plain(noon.to(torch.uint8), 32) - plain(dusk, 32)).abs().mean()
    assert apart > 0.2
    flat = plain(torch.full((1, 3, 32, 32), 7, dtype=torch.uint8), 32, "picture")
    assert torch.equal(flat, torch.zeros_like(flat))


def test_no_augmentation_is_plain_preparation():
    spec = AugmentationSpec(min_scale=1, aspect=0, brightness=0, contrast=0, saturation=0)
    pictures = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(augment(pictures, 32, spec, torch.Generator()), plain(pictures, 32), atol=1e-4, rtol=1e-4)
    own = augment(pictures, 32, spec, torch.Generator(), "picture")
    torch.testing.assert_close(own, plain(pictures, 32, "picture"), atol=1e-3, rtol=1e-3)


# --- losses
def _loss(vectors: torch.Tensor, locations: list[int], *, kind: str) -> float:
    torch.manual_seed(0)
    spec = LossSpec.model_validate({kind: {}})
    loss = PlaceLoss(spec, torch.tensor(locations[::2]), 4)
    return float(loss(vectors, PLACES, torch.tensor(locations))["loss"].detach())


PLACES = torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize("kind", ["multi_similarity", "supervised_contrastive"])
def test_another_view_of_the_same_location_is_not_pushed_away(kind: str):
    apart = torch.eye(4)[[0, 0, 1, 1]]
    alike = torch.eye(4)[[0, 0, 0, 0]]
    assert _loss(alike, [5, 5, 6, 6], kind=kind) > _loss(apart, [5, 5, 6, 6], kind=kind) + 0.1
    assert _loss(alike, [5, 5, 5, 5], kind=kind) < _loss(alike, [5, 5, 6, 6], kind=kind) - 0.1


def test_classes_of_the_same_location_do_not_compete():
    vectors = torch.nn.functional.normalize(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    assert _loss(vectors, [5, 5, 5, 5], kind="cosface") < 1e-3
    assert _loss(vectors, [5, 5, 6, 6], kind="cosface") > 0.1


# --- networks
def test_gem_lies_between_mean_and_maximum():
    features = torch.rand(2, 3, 5, 5)
    pooled = GeM()(features)
    assert (pooled > features.mean((2, 3))).all()
    assert (pooled < features.amax((2, 3))).all()


@pytest.mark.parametrize("pooling", ["gem", "average", "strips", "grid"])
def test_every_pooling_gives_unit_vectors(pooling: str):
    network = build_network(tiny_recipe(head={"pooling": pooling, "channels": 8, "dimension": 16})).eval()
    vectors = network(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def test_only_pooling_that_keeps_the_layout_notices_a_rearranged_picture():
    features = torch.rand(1, 16, 4, 4)
    shuffled = features.flip(3)
    gem = GeM()
    torch.testing.assert_close(gem(features), gem(shuffled))
    strips = GeM((1, 4))
    assert not torch.allclose(strips(features), strips(shuffled))


@pytest.mark.parametrize(
    ("library", "name", "size", "channels"),
    [
        ("timm", "resnet18", 64, 512),
        ("torchvision", "resnet18", 64, 512),
        ("timm", "test_vit", 160, 64),
        pytest.param("timm", "resnet50", 64, 2048, marks=pytest.mark.slow),
        pytest.param("timm", "vit_base_patch32_clip_224", 224, 768, marks=pytest.mark.slow),
    ],
)
def test_backbones_by_name_give_feature_maps(library: str, name: str, size: int, channels: int):
    backbone = build_backbone(BackboneSpec.model_validate({"library": library, "name": name}), size)
    assert backbone.channels == channels
    with torch.no_grad():
        assert backbone.eval()(torch.zeros(1, 3, size, size)).shape == (1, channels, backbone.height, backbone.width)


def test_a_smaller_output_stride_gives_a_finer_map():
    spec = {"name": "resnet_basic", "channels": [8] * 4, "blocks": [1] * 4}
    sides = [build_backbone(BackboneSpec.model_validate({**spec, "output_stride": n}), 96).width for n in (32, 16, 8)]
    assert sides == [3, 6, 12]
    with pytest.raises(RecipeError, match="cannot be built"):
        build_backbone(BackboneSpec(name="test_vit", output_stride=8), 160)


def test_without_the_linear_layer_the_pooled_features_are_the_vector():
    network = build_network(tiny_recipe(head={"pooling": "gem", "projection": "none"})).eval()
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, network.dimension) == (2, 16)


def test_whitening_evens_out_the_directions_of_unit_vectors():
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(500, 6) * torch.tensor([9.0, 3, 1, 1, 0.5, 0.2]) + 2, dim=1)

    def spread(power: float) -> float:
        whitening = Whitening(6, 6)
        whitening.fit(vectors, power)
        values = torch.linalg.svdvals((vectors - whitening.mean) @ whitening.matrix)
        torch.testing.assert_close(whitening(vectors).norm(dim=1), torch.ones(500))
        return float(values[0] / values[-1])

    assert spread(0) > spread(0.5) > spread(1)
    assert spread(1) == pytest.approx(1, abs=1e-3)


def test_frozen_stages_do_not_change():
    backbone = build_backbone(BackboneSpec(name="resnet_basic", channels=[8] * 4, blocks=[1] * 4, frozen_stages=2), 32)
    backbone.train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=1.0)
    backbone(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimiser.step()
    frozen = [name for name in before if name.startswith(("body.conv1", "body.bn1", "body.layer1", "body.layer2"))]
    assert frozen
    assert all(torch.equal(backbone.state_dict()[name], before[name]) for name in frozen)
    assert all((p.grad is None) == (name in frozen) for name, p in backbone.named_parameters())


def test_weights_come_from_a_file_or_the_error_says_why_not(tmp_path: Path):
    basic = {"name": "resnet_basic", "channels": [8] * 4, "blocks": [1] * 4}
    source = build_backbone(BackboneSpec.model_validate(basic), 32)
    good = tmp_path / "good.safetensors"
    save_file(source.body.state_dict(), good)
    loaded = build_backbone(BackboneSpec.model_validate({**basic, "weights": str(good)}), 32)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), source.parameters(), strict=True))

    torch.save({"state_dict": source.body.state_dict()}, tmp_path / "good.pth")
    build_backbone(BackboneSpec.model_validate({**basic, "weights": str(tmp_path / "good.pth")}), 32)

    (tmp_path / "broken.safetensors").write_bytes(b"nonsense")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name, message in [("broken", "cannot be read"), ("other", "has no weights for"), ("absent", "no weights file")]:
        with pytest.raises(WeightsError, match=message):
            build_backbone(BackboneSpec.model_validate({**basic, "weights": str(tmp_path / f"{name}.safetensors")}), 32)


def test_a_pickle_is_never_opened_as_weights(tmp_path: Path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(UnsafeFileError):
        build_backbone(BackboneSpec(weights=str(path)), 32)


def test_unknown_models_are_named_with_neighbours():
    with pytest.raises(RecipeError, match=r"timm has no model .resnet19.*resnet"):
        build_backbone(BackboneSpec(name="resnet19"), 64)
    with pytest.raises(RecipeError, match="torchvision has no model"):
        build_backbone(BackboneSpec(library="torchvision", name="resnet19"), 64)


@pytest.mark.parametrize("by", ["published", "picture"])
@pytest.mark.parametrize("size", [48, 64])
def test_pictures_prepared_in_bytes_are_those_prepared_in_floats_but_for_rounding(by: Normalisation, size: int):
    pictures = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    exact, fast = plain(pictures, size, by), prepared(pictures, size, by)
    assert fast.shape == exact.shape == (3, 3, size, size)
    assert (exact - fast).abs().max() < (0.03 if size == 48 else 1e-5)
