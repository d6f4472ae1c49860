"""Maps, contact sheets and charts: values in, small pictures out as bytes."""
