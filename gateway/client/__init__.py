"""Self-custody: a wallet whose key never leaves this machine, paying through a gateway over HTTP."""
