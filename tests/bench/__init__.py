"""What the hot parts cost, in signature checks."""
