"""The HTTP endpoints, a router per subject."""
