"""From captures to the feature table: crops, quality flags, splits and leakage checks."""
