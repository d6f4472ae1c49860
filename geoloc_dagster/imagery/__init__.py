"""Providers of street-level imagery and the engine that collects from them; knows nothing of what it is for."""
