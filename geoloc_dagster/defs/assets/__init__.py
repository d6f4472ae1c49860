"""The asset graph, one module per group; each asset reads its inputs, calls one domain function and reports."""
