"""How each place of the emulated planet looks: climate, soil and plants, culture, region and town, from coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from geoloc_dagster.emulator.hashing import Dice, key_of
from geoloc_dagster.emulator.planet_canvas import Rgb, mix, shade, varied
from geoloc_dagster.emulator.planet_climate import Climate, Zone, climate_of
from geoloc_dagster.emulator.planet_fields import Sites, region_of, vector

Tree = Literal["conifer", "broadleaf", "palm", "acacia", "cypress", "cactus", "bush", "jungle", "birch"]
Roof = Literal["gable", "hip", "flat", "curved", "mansard", "dome"]
Fence = Literal["none", "pickets", "wire", "wall", "hedge", "rails"]
Pole = Literal["wooden", "concrete", "lamp", "double lamp", "lantern"]
Landmark = Literal[
    "spire", "dome", "minarets", "pagoda", "obelisk", "twin towers", "needle", "arch", "castle", "wheel", "pyramid", "pylons"
]

_TREES: dict[Zone, tuple[tuple[Tree, float], ...]] = {
    "ice": (("bush", 1.0),),
    "boreal": (("conifer", 6.0), ("birch", 2.0), ("bush", 1.0)),
    "temperate": (("broadleaf", 6.0), ("conifer", 2.0), ("birch", 1.0), ("bush", 1.0)),
    "mediterranean": (("cypress", 3.0), ("broadleaf", 3.0), ("bush", 3.0), ("palm", 1.0)),
    "steppe": (("bush", 5.0), ("birch", 1.0), ("broadleaf", 1.0)),
    "desert": (("cactus", 2.0), ("bush", 3.0), ("palm", 1.5)),
    "savanna": (("acacia", 6.0), ("bush", 2.0), ("broadleaf", 1.0)),
    "rainforest": (("jungle", 5.0), ("palm", 3.0), ("broadleaf", 1.0)),
}
_LEAVES: dict[Zone, Rgb] = {
    "ice": (118, 124, 88), "boreal": (44, 76, 56), "temperate": (72, 134, 48), "mediterranean": (104, 118, 66),
    "steppe": (136, 138, 78), "desert": (124, 132, 84), "savanna": (112, 126, 52), "rainforest": (34, 118, 52),
}  # fmt: skip
_GROUND: dict[Zone, Rgb] = {
    "ice": (146, 142, 130), "boreal": (112, 104, 82), "temperate": (122, 108, 78), "mediterranean": (178, 152, 112),
    "steppe": (186, 166, 112), "desert": (216, 178, 124), "savanna": (182, 132, 80), "rainforest": (122, 84, 56),
}  # fmt: skip
_STREET_TREES: dict[Zone, tuple[Tree, ...]] = {
    "ice": ("conifer", "bush", "birch"), "boreal": ("conifer", "birch", "broadleaf"),
    "temperate": ("broadleaf", "conifer", "birch", "cypress"), "mediterranean": ("cypress", "palm", "broadleaf"),
    "steppe": ("broadleaf", "cypress", "birch"), "desert": ("palm", "cypress", "acacia"),
    "savanna": ("acacia", "palm", "broadleaf"), "rainforest": ("palm", "broadleaf", "jungle"),
}  # fmt: skip
_LANDMARKS: tuple[Landmark, ...] = get_args(Landmark)
_DRY_GRASS: Rgb = (188, 168, 104)
_SOILS: tuple[Rgb, ...] = (
    (188, 92, 58), (206, 178, 118), (112, 98, 90), (222, 208, 186), (150, 112, 72), (96, 84, 70), (200, 140, 108),
    (164, 152, 138),
)  # fmt: skip
_WALLS: tuple[Rgb, ...] = (
    (226, 214, 190), (164, 82, 62), (236, 236, 232), (214, 172, 104), (150, 140, 130), (196, 128, 108), (134, 160, 178),
    (206, 196, 120), (118, 92, 72), (226, 178, 170), (120, 148, 122), (186, 150, 116),
)  # fmt: skip
_ROOFS: tuple[Rgb, ...] = (
    (172, 78, 54), (74, 74, 82), (122, 66, 50), (92, 112, 96), (58, 88, 124), (150, 134, 112), (196, 108, 66), (110, 104, 104),
)  # fmt: skip
_BRIGHT: tuple[Rgb, ...] = (
    (200, 42, 46), (32, 84, 164), (240, 196, 48), (36, 132, 82), (236, 236, 236), (40, 40, 46), (226, 116, 36), (120, 54, 128),
    (54, 160, 176),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Flora:
    """Plants of a climate in one part of the world."""

    trees: tuple[Tree, ...]
    shares: tuple[float, ...]
    leaf: Rgb
    bark: Rgb
    grass: Rgb
    crop: Rgb
    tall: float

    def pick(self, dice: Dice) -> Tree:
        """What grows at a spot."""
        return dice.pick(self.trees, self.shares)


@dataclass(frozen=True, slots=True)
class Culture:
    """How people build, drive and write in about a country."""

    roof: Roof
    roofs: tuple[Rgb, ...]
    pitch: float
    walls: tuple[Rgb, ...]
    storeys: tuple[int, int]
    window: tuple[float, float]
    rhythm_m: float
    arched: bool
    frame: Rgb
    shutters: Rgb | None
    bands: bool
    line: Rgb
    pattern: Literal["dashes", "solid", "double", "none"]
    edge: Rgb | None
    asphalt: Rgb
    fence: Fence
    fence_rgb: Rgb
    pole: Pole
    pole_rgb: Rgb
    plate: Rgb
    cars: tuple[Rgb, ...]
    vans: float
    script: int
    sign: Rgb
    letters: Rgb
    upright_signs: bool
    awning: tuple[Rgb, Rgb]
    clothes: tuple[Rgb, ...]
    floor: Rgb
    floor_pattern: int
    room: Rgb
    wood: Rgb


@dataclass(frozen=True, slots=True)
class Town:
    """What tells a town or region from the next one."""

    key: int
    landmark: Landmark
    stone: Rgb
    accent: Rgb
    roof: Rgb
    tall: float
    paving: Rgb
    paving_pattern: int
    street_tree: Tree
    skyline: float


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that the look of a place depends on, but for date and camera."""

    climate: Climate
    soil: Rgb
    water: Rgb
    flora: Flora
    culture: Culture
    town: Town
    region: int


class _Kin(Dice):
    """Draws of which a share is that of a family: members resemble each other without being the same."""

    def __init__(self, family: Dice, own: Dice, share: float) -> None:
        super().__init__()
        self._family, self._own, self._share = family, own, share

    def unit(self) -> float:
        theirs, mine = self._family.unit(), self._own.unit()
        return theirs if self._own.unit() < self._share else mine


class Looks:
    """The looks of one planet.

    Args:
        seed: of the planet.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._cultures, self._soils = Sites(seed, 1, 700), Sites(seed, 2, 2_600)
        self._realms, self._provinces = Sites(seed, 3, 70), Sites(seed, 4, 6_000)
        self._region = lru_cache(maxsize=4_096)(self._new_region)
        self._culture = lru_cache(maxsize=1_024)(self._new_culture)

    def at(self, lat_deg: float, lng_deg: float, cluster: int | None) -> Look:
        """The look of a position; towns are those of the cluster, or of the region where it belongs to none."""
        at = vector(lat_deg, lng_deg)
        climate = climate_of(self._seed, lat_deg, lng_deg)
        number = self._cultures.nearest(at)
        realm = self._realms.nearest(at)
        region = region_of(self._seed, lat_deg, lng_deg)
        key = region if cluster is None else key_of(self._seed, 931, cluster)
        flora, soil = self._region(realm, self._soils.nearest(at), climate.zone, key)
        culture = self._culture(number, realm, climate.zone)
        water = mix((70, 112, 140), (48, 150, 158), min(max((climate.mean_c - 6) / 20, 0), 1))
        return Look(
            climate,
            soil,
            varied(Dice(self._seed, 934, region), water, 14),
            flora,
            culture,
            self._town(key, at, climate.zone),
            region,
        )

    def _new_region(self, realm: int, geology: int, zone: Zone, key: int) -> tuple[Flora, Rgb]:
        """Plants and soil: those of the climate and part of the world, each region and town with its own favourites."""
        local = Dice(key, 938)
        dice = Dice(self._seed, 932, realm, len(zone) * 31 + ord(zone[0]))
        kinds: tuple[Tree, ...] = tuple(tree for tree, _ in _TREES[zone])
        shares = tuple(weight * dice.between(0.25, 1.75) * local.between(0.1, 1.5) ** 2 for _, weight in _TREES[zone])
        leaf, tall = varied(local, varied(dice, _LEAVES[zone], 20), 10), dice.between(0.8, 1.2) * local.between(0.8, 1.2)
        bark = dice.pick(((92, 70, 52), (64, 56, 50), (150, 142, 132), (122, 78, 58)))
        crop = local.pick(((212, 188, 92), (122, 148, 62), (226, 206, 60), (150, 110, 76), (120, 92, 150)))
        flora = Flora(kinds, shares, leaf, bark, mix(leaf, varied(local, (132, 152, 76), 18), 0.55), crop, tall)
        ground = Dice(self._seed, 933, geology)
        soil = mix(dice.pick(_SOILS), varied(ground, ground.pick(_SOILS), 10), 0.5)
        return flora, varied(local, mix(_GROUND[zone], soil, 0.6), 11)

    def _new_culture(self, number: int, realm: int, zone: Zone) -> Culture:
        """How a country builds: much of it as the others of its part of the world."""
        dice = _Kin(Dice(self._seed, 936, realm), Dice(self._seed, 935, number), 0.55)
        cold, hot = zone in ("ice", "boreal"), zone in ("desert", "savanna", "rainforest")
        roofs: tuple[tuple[Roof, float], ...] = (
            ("gable", 4 if not hot else 1.5),
            ("hip", 2.5),
            ("flat", 0.6 if cold else 4 if hot else 2),
            ("curved", 1.3),
            ("mansard", 0.3 if hot else 1.2),
            ("dome", 0.1 if cold else 0.8),
        )
        shared, bright = dice.pick(_WALLS), [dice.pick(_BRIGHT) for _ in range(9)]
        roof_rgb = varied(dice, dice.pick(_ROOFS), 12)
        high = dice.integer(1, 5)
        pale = (236, 232, 224)
        shutters, has_shutters = varied(dice, dice.pick(_BRIGHT), 20), dice.chance(0.4)
        return Culture(
            roof=dice.pick([roof for roof, _ in roofs], [weight for _, weight in roofs]),
            roofs=(roof_rgb, varied(dice, roof_rgb, 14), dice.pick(_ROOFS)),
            pitch=dice.between(0.35, 0.65) if hot else dice.between(0.55, 1.25),
            walls=(varied(dice, shared, 18), varied(dice, dice.pick(_WALLS), 10), varied(dice, dice.pick(_WALLS), 14)),
            storeys=(high, high + dice.integer(1, 3)),
            window=(dice.between(0.28, 0.7), dice.between(0.36, 0.72)),
            rhythm_m=dice.between(1.7, 3.6),
            arched=dice.chance(0.25),
            frame=dice.pick((pale, (74, 50, 38), (52, 60, 66), (150, 40, 40), (40, 90, 70), (46, 74, 130))),
            shutters=shutters if has_shutters else None,
            bands=dice.chance(0.35),
            line=dice.pick(((240, 240, 236), (242, 196, 60)), (6, 4)),
            pattern=dice.pick(("dashes", "solid", "double", "none"), (5, 2, 2, 1)),
            edge=dice.pick((None, (236, 236, 232), (240, 196, 70)), (4, 4, 2)),
            asphalt=varied(dice, dice.pick(((88, 90, 94), (118, 114, 110), (72, 72, 76), (140, 126, 112))), 6),
            fence=dice.pick(("none", "pickets", "wire", "wall", "hedge", "rails"), (1, 2, 2, 2, 2, 2)),
            fence_rgb=dice.pick((pale, (120, 88, 60), (150, 148, 140), (96, 104, 96), (190, 170, 140))),
            pole=dice.pick(("wooden", "concrete", "lamp", "double lamp", "lantern")),
            pole_rgb=dice.pick(((104, 78, 58), (172, 170, 164), (58, 64, 66), (60, 104, 84), (150, 152, 158))),
            plate=dice.pick(((240, 240, 240), (244, 208, 52), (36, 66, 150), (40, 40, 40), (52, 140, 84)), (4, 3, 1, 1, 1)),
            cars=tuple(varied(dice, colour, 12) for colour in bright[:3]),
            vans=dice.between(0, 0.6),
            script=dice.integer(0, 4),
            sign=varied(dice, bright[3], 8),
            letters=(246, 244, 238) if sum(bright[3]) < 420 else (30, 30, 36),
            upright_signs=dice.chance(0.3),
            awning=(bright[4], pale),
            clothes=(bright[5], bright[6], (60, 66, 80)),
            floor=varied(dice, dice.pick(((150, 106, 68), (186, 172, 150), (120, 84, 60), (196, 190, 182), (160, 92, 72))), 10),
            floor_pattern=dice.integer(0, 2),
            room=varied(
                dice, dice.pick(((232, 224, 208), (214, 220, 216), (222, 200, 170), (196, 208, 222), (220, 188, 180))), 8
            ),
            wood=varied(dice, dice.pick(((116, 76, 48), (172, 128, 82), (80, 56, 44), (202, 172, 130))), 8),
        )

    def _town(self, key: int, at: tuple[float, float, float], zone: Zone) -> Town:
        dice, province = Dice(key, 941), Dice(self._seed, 937, self._provinces.nearest(at))
        accent = varied(province, province.pick(_WALLS), 16)
        stone = varied(dice, mix(dice.pick(_WALLS), province.pick(_WALLS), 0.3), 12)
        return Town(
            key=key,
            landmark=dice.pick(_LANDMARKS),
            stone=stone,
            accent=varied(dice, accent, 10),
            roof=varied(dice, dice.pick(_ROOFS), 8),
            tall=dice.between(0.7, 1.5),
            paving=varied(
                dice, dice.pick(((170, 164, 156), (186, 150, 124), (128, 126, 128), (206, 192, 164), (150, 112, 100))), 8
            ),
            paving_pattern=dice.integer(0, 3),
            street_tree=dice.pick(_STREET_TREES[zone]),
            skyline=dice.between(0.0, 1.0) ** 1.5,
        )


def roof_under(colour: Rgb, snow: float) -> Rgb:
    """A surface with snow on it."""
    return mix(colour, (240, 243, 248), min(snow * 1.1, 0.95))


def grass_of(look: Look, month: float) -> Rgb:
    """The colour of what grows on the ground in a month."""
    green = look.climate.green(month)
    grass = mix(mix(_DRY_GRASS, look.soil, 0.35), look.flora.grass, green)
    return roof_under(grass, look.climate.snow(month))


def leaf_of(look: Look, month: float, dice: Dice) -> Rgb:
    """The colour of one tree's leaves in a month."""
    leaf = varied(dice, look.flora.leaf, 12)
    turned = look.climate.autumn(month)
    if turned > 0:
        leaf = mix(leaf, dice.pick(((214, 136, 40), (190, 70, 40), (220, 180, 60))), min(1.0, turned * dice.between(0.6, 1.3)))
    elif look.climate.green(month) < 0.5:
        leaf = mix(leaf, shade(_DRY_GRASS, 0.8), 0.5 - look.climate.green(month))
    return mix(leaf, (240, 243, 248), 0.5 * look.climate.snow(month) * dice.unit())
