"""The network's hard caps. A message beyond one of them is refused before it is looked at further."""

MAX_AMOUNT = 2**63 - 1
"""Largest amount, balance or supply, in the asset's smallest unit."""

MAX_LEGS = 16
MAX_MEMO_BYTES = 140
MAX_ASSET_CODE = 12
MAX_TRANSACTION_BYTES = 4096
MIN_TRANSACTION_BYTES = 170
"""Less than any encoded transaction has: what is shorter need not be looked at."""

MAX_SHARDS = 1024
MAX_COMMITTEE = 256
MAX_REGISTRATIONS = 4096
MAX_ASSETS = 64

MAX_BLOCK_TRANSACTIONS = 1 << 16
"""What a genesis may allow in one block at most."""

MAX_BLOCK_PAYLOAD_BYTES = 1 << 20
"""Transactions and bundles a proposer packs into one block, bytes. A single bundle may go beyond it alone."""

MAX_BLOCK_RECORDS = 4096
"""Records of two-phase commit that the bundles in one block may hold. A single bundle may go beyond it alone."""

MAX_BUNDLE_BYTES = 4 << 20
MAX_FRAME_BYTES = 8 << 20
"""Largest message between two peers, bytes."""

MAX_ENTRY_BYTES = 2048
"""Of an entry for the register."""
MAX_BLOCK_ENTRIES = 64
"""In one block: their signatures are checked as it is executed."""

MAX_ASK_BYTES = 64
"""Of a question for a bulletin or a succession."""

MAX_BROKER_BATCH_BYTES = 64 << 10
"""Transactions a client packs into one broker message, bytes (a single larger transaction cannot exist)."""
MAX_BATCH_TRANSACTIONS = MAX_BROKER_BATCH_BYTES // MIN_TRANSACTION_BYTES
MAX_BATCH_BODY_BYTES = MAX_BROKER_BATCH_BYTES + 4096
"""The same with the bytes that hold them together. Nodes do not read a larger message."""
MAX_QUERY_BYTES = 256
MAX_REFUSALS_BYTES = 256 << 10
"""The largest message of refusals, bytes."""
MAX_LISTED_BYTES = 256 << 10
"""Transactions in one answer to a question for those that wait."""

MAX_BROKER_BODY_BYTES = 16 << 20

MAX_STORED_BYTES = 64 << 20
"""What a node reads back from its own disk as one value, bytes: above all it can have stored."""

MAX_VIEWS_AHEAD = 50
"""Votes further ahead of a replica's own view than this are dropped; catch-up brings it there instead."""

MAX_FINALITY_PATH = 512
"""Headers between a block and the one whose certificate makes it final: no path to a block less than 2^31 higher has more."""

MAX_PART_ROWS = 2048
"""Rows in one part of a checkpoint. To check them takes some ten milliseconds."""
MAX_REPLAY_PART = 4096
"""Ids of the replay set that one row commits to."""
MAX_PLACES = 32
"""Parts asked for at once."""

MAX_NULLIFICATIONS = 16
"""Certificates of nullified views that a proposal brings: 4 KiB in a committee of four, 180 KiB in the largest one."""
