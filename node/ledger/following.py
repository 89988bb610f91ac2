"""Following: executing a block that its committee made final, as who does not vote does, and who starts again."""

from node.ledger.execution import Execution, InvalidBlock, execute
from node.ledger.rules import Rules
from node.ledger.state import State
from node.protocol.block import Block
from node.protocol.channel import CertifiedBundle
from node.protocol.codec import decode
from node.protocol.entries import decode_entry
from node.protocol.limits import MAX_BUNDLE_BYTES
from node.protocol.transaction import Transaction, decode_transaction


def execute_final(block: Block, state: State, rules: Rules) -> Execution:
    """What a final block does on ``state``. Its bundles and signatures need no check but for what its outcome depends on.

    Raises:
        DecodeError: its payload is malformed. InvalidBlock: executing it does not give what its header says.
    """
    header = block.header
    bundles = [decode(CertifiedBundle, encoded, MAX_BUNDLE_BYTES).bundle for encoded in block.bundles]
    transactions = [(t.id, t) for t in map(decode_transaction, block.transactions)]
    entries, valid = list(map(decode_entry, block.entries)), Transaction.has_valid_signatures
    execution = execute(state, rules, header.height, header.time, bundles, transactions, valid, entries)
    if not execution.gives(header):
        raise InvalidBlock(f"block {header.height} does not execute to what its header says")
    return execution
