"""Proofs that need no trust in this gateway, and no network to check."""

from fastapi import APIRouter

from gateway.api.errors import errors
from gateway.api.requests import GatewayPart, account_address, transaction_id
from gateway.proofs.form import AccountProof, TransactionProof

router = APIRouter(prefix="/v1", tags=["proofs"])


@router.get(
    "/transactions/{transfer_id}/proof",
    responses=errors(
        "404 transfer_not_found", "409 not_final", "409 not_in_a_block", "409 not_provable", "503 not_ready", "503 no_answer"
    ),
)
async def of_transaction(transfer_id: str, gateway: GatewayPart) -> TransactionProof:
    """What became of a final transaction, with all that proves it to who knows the genesis.

    Save the answer and check it with `python -m gateway verify FILE --genesis GENESIS`. It holds the transaction, the receipt of
    each shard it touches with the header of the block and its committee's signatures, and the epoch document that names the
    committee. 409 `not_final` while it is under way, `not_in_a_block` when no block took it: what did not happen has no proof.
    """
    return await gateway.proofs.of_transaction(transaction_id(transfer_id))


@router.get(
    "/accounts/{address}/proof",
    responses=errors(
        "404 account_not_followed",
        "409 not_in_a_block",
        "409 not_provable",
        "422 invalid_address",
        "503 not_ready",
        "503 no_answer",
    ),
)
async def of_account(address: str, gateway: GatewayPart) -> AccountProof:
    """What an account of a wallet here held right after the latest block that changed it, by asset, with all that proves it.

    That no later block changed it is not proven, nor what it holds of other assets.
    """
    return await gateway.proofs.of_account(account_address(address))
