"""Money in and out: purchases by card, payouts to banks, refunds, the faucet, and whether it all adds up."""
