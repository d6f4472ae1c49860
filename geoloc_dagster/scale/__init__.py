"""Where the data-parallel work inside a step is done: in this process, or by the nodes of a Ray cluster."""
