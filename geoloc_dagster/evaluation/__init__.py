"""How well a model finds places: one protocol, intervals by place, baselines beside every number."""
