"""From crops to a searchable gallery: vectors of the champion, an index over them, and votes among its hits."""
