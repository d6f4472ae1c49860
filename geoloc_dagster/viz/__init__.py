"""Maps, contact sheets and charts as bytes."""
