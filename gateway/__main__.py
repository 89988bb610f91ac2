"""``python -m gateway --config FILE``: the wallet gateway. ``... verify`` and others: what can be done beside it."""

import sys
from importlib import import_module

COMMANDS = {
    "verify": "gateway.proofs.command",
    "reconcile": "gateway.money.command",
    "rotate-key": "gateway.rotation",
    "admin": "gateway.admin.command",
    "audit-log": "gateway.admin.log_command",
    "backup": "gateway.backup",
    "restored": "gateway.restored",
}
"""Where each is; loaded when it is called, so that checking a proof does not wait for a server to be loaded."""


def main(arguments: list[str]) -> int:
    """The exit code of a command, or of the gateway."""
    if arguments and (place := COMMANDS.get(arguments[0])):
        return int(import_module(place).main(arguments[1:]))
    return int(import_module("gateway.serve").main(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
