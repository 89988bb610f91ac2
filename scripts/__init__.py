"""What a person runs; see README.md."""
