"""Who people are to the gateway: accounts, passwords, sessions, API keys, and the mails that prove an address."""
