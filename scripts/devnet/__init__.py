"""A network on this machine: the folder it lives in, its processes, and what they say (``scripts/up``, ``scripts/launch``)."""
