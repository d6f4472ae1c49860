"""The emulated city: what it looks like, and the street-view service that shows it."""
