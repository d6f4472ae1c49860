"""Write the list of the emulated planet's photos: `python write_list.py planet.csv [PHOTOS] [BASE_URL] [SEED]`."""

import sys
from pathlib import Path

from geoloc_dagster.emulator.planet_list import write_planet_list

path, photos, base_url, seed = [*sys.argv[1:], *("planet.csv", "20000", "http://127.0.0.1:8300", "0")[len(sys.argv) - 1 :]]
write_planet_list(Path(path), base_url, int(photos), int(seed))
