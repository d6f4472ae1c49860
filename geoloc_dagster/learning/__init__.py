"""Recipes, backbones, losses and the training loop; does not know where pictures came from."""
