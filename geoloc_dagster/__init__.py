"""Give it a polygon; get a visual geolocator for that place that keeps itself fresh."""

__version__ = "0.1.0"
