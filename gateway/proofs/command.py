"""``python -m gateway verify FILE --genesis GENESIS``: what a proof proves. It asks nobody."""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gateway.proofs.checking import Refused, check
from gateway.proofs.form import MAX_PROOF_BYTES, AccountProof, Proof, TransactionProof
from gateway.proofs.words import in_words
from node.protocol.genesis import Genesis, read_genesis

PROVEN, REFUSED, NO_PROOF = 0, 1, 2
_proof: TypeAdapter[TransactionProof | AccountProof] = TypeAdapter(Proof)


class NoProof(Exception):
    """The file is no proof, or there is nothing to check it with; the text says why."""


def main(arguments: list[str]) -> int:
    """Exit code 0: proven. 1: refused. 2: not a proof, or something that is needed cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m gateway verify", description="Say what a proof of a transaction or an account proves. Needs no network."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the proof, as the gateway answered it")
    parser.add_argument("--genesis", required=True, type=Path, metavar="FILE", help="the genesis of the network you trust")
    parser.add_argument("--document-1", metavar="HASH", help="hash of the document of epoch 1: a proof under another is refused")
    parser.add_argument("--json", action="store_true", help="say it in JSON")
    options = parser.parse_args(arguments)
    try:
        proof = read_proof(options.file)
        lines = in_words(proof, check(proof, _genesis(options.genesis), _hash(options.document_1)))
    except Refused as refused:
        return _say(REFUSED, {"result": "refused", "reason": str(refused)}, [f"Refused: {refused}."], options.json)
    except NoProof as error:
        return _say(NO_PROOF, {"result": "not_a_proof", "reason": str(error)}, [f"Not a proof: {error}"], options.json)
    answer = {"result": "proven", "claim": proof.claim.model_dump(mode="json"), "words": lines}
    return _say(PROVEN, answer, lines, options.json)


def read_proof(path: Path) -> TransactionProof | AccountProof:
    """Raises NoProof."""
    try:
        if path.stat().st_size > MAX_PROOF_BYTES:
            raise NoProof(f"{path} has more than {MAX_PROOF_BYTES} bytes")
        return _proof.validate_json(path.read_bytes())
    except OSError as error:
        raise NoProof(str(error)) from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise NoProof(": ".join([str(path), *(repr(step) for step in first["loc"]), first["msg"]])) from None


def _genesis(path: Path) -> Genesis:
    try:
        return read_genesis(path)
    except (OSError, ValueError) as error:
        raise NoProof(f"the genesis cannot be read: {error}") from None


def _hash(text: str | None) -> str | None:
    if text is not None and not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise NoProof("--document-1 is a hash: 64 digits in base 16")
    return text and text.lower()


def _say(code: int, answer: dict[str, Any], lines: list[str], as_json: bool) -> int:
    text = json.dumps(answer, indent=2) if as_json else "\n".join(lines)
    print(text, file=sys.stdout if as_json or code == PROVEN else sys.stderr)
    return code
