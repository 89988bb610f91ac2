"""What the people who run a gateway may do, and the log of it."""
