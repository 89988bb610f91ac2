"""One member of one committee: consensus and ledger, and what it takes to keep both fed."""
